package beanstalkd

import (
	"bufio"
	"bytes"
)

// MaxBody is the largest answer that is read.
const MaxBody = maxBody

// ReadStats reads one answer and what it says; remaining is how many bytes of it are left.
func ReadStats(answer []byte) (ready, reserved, delayed int64, remaining int, err error) {
	source := bytes.NewReader(answer)
	reader := bufio.NewReaderSize(source, maxLine)
	body, err := readAnswer(reader)
	if err != nil {
		return 0, 0, 0, 0, err
	}
	stats, err := parseStats(body)
	return stats.ready, stats.reserved, stats.delayed, reader.Buffered() + source.Len(), err
}

// Connections returns how many connections are kept.
func (c *Clients) Connections() int { return c.connections.Len() }
