package beanstalkd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// Limits of what a server may send; its answer has about 400 bytes.
const (
	maxLine = 4 << 10
	maxBody = 64 << 10
)

// connection asks one server, one question after another. It connects when it is first asked, and anew after a failure.
//
// It speaks the one command that is needed itself: the client library of the server's makers sets no limit on how long
// a server may take, nor on how much it may announce, and panics where that is negative.
type connection struct {
	settings settings
	// turn holds one token; who has it may use what follows.
	turn   chan struct{}
	conn   net.Conn
	reader *bufio.Reader
}

// tubeStats is how many jobs of a tube are in which state.
type tubeStats struct{ ready, reserved, delayed int64 }

func newConnection(s settings) *connection {
	c := &connection{settings: s, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// close ends the connection, after the question that is under way.
func (c *connection) close() {
	<-c.turn
	c.disconnect()
	c.turn <- struct{}{}
}

func (c *connection) disconnect() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// stats asks for a tube, until ctx ends. A tube that does not exist has no jobs.
func (c *connection) stats(ctx context.Context, tube string) (tubeStats, error) {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return tubeStats{}, c.explain(ctx.Err())
	}
	defer func() { c.turn <- struct{}{} }()
	reused := c.conn != nil
	stats, err := c.ask(ctx, tube)
	if err != nil && reused && c.conn == nil && ctx.Err() == nil {
		// The connection was lost since it was last used, for example when the server restarted. Asking again is harmless.
		stats, err = c.ask(ctx, tube)
	}
	if err != nil {
		return tubeStats{}, c.explain(err)
	}
	return stats, nil
}

// ask sends the question and reads the answer. Whenever it is not certain that the next answer would belong to the next
// question, it disconnects.
func (c *connection) ask(ctx context.Context, tube string) (stats tubeStats, err error) {
	if err := c.connect(ctx); err != nil {
		return tubeStats{}, err
	}
	clean := false
	defer func() {
		if !clean {
			c.disconnect()
		}
	}()
	// The deadline of ctx, or its end before that.
	conn := c.conn
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return tubeStats{}, err
	}
	ended := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !ended() {
			clean = false // the deadline may be set at any moment
		}
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	if _, err := conn.Write([]byte("stats-tube " + tube + "\r\n")); err != nil {
		return tubeStats{}, err
	}
	body, err := readAnswer(c.reader)
	var refusal refusalError
	clean = err == nil || errors.As(err, &refusal)
	switch {
	case refusal == "NOT_FOUND":
		return tubeStats{}, nil
	case err != nil:
		return tubeStats{}, err
	}
	return parseStats(body)
}

func (c *connection) connect(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	dialer := net.Dialer{Timeout: c.settings.timeout}
	conn, err := dialer.DialContext(ctx, "tcp", c.settings.address)
	if err != nil {
		return err
	}
	c.conn, c.reader = conn, bufio.NewReaderSize(conn, maxLine)
	return nil
}

// explain says which server failed, and what that means.
func (c *connection) explain(err error) error {
	if hint := network.Hint(err, false); hint != "" {
		return fmt.Errorf("beanstalkd at %s %s: %w", c.settings.address, hint, err)
	}
	return fmt.Errorf("beanstalkd at %s %w", c.settings.address, err)
}

// refusalError is an answer of the server that is not OK: one word of the protocol.
type refusalError string

func (e refusalError) Error() string {
	switch e {
	case "OUT_OF_MEMORY":
		return "is out of memory"
	case "INTERNAL_ERROR":
		return "reports an internal error"
	case "DRAINING":
		return "is draining"
	default:
		return "does not take the command stats-tube; is it a beanstalkd of version 1.0 or later?"
	}
}

// errForeign is the error of an answer that no beanstalkd gives.
var errForeign = errors.New("does not answer as beanstalkd does; give the address of a beanstalkd server")

// readAnswer reads one answer. After a refusalError the next answer can be read.
func readAnswer(reader *bufio.Reader) ([]byte, error) {
	line, err := reader.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errForeign
	case err != nil:
		return nil, err
	}
	text, complete := strings.CutSuffix(string(line), "\r\n")
	if !complete {
		return nil, errForeign
	}
	switch text {
	case "NOT_FOUND", "OUT_OF_MEMORY", "INTERNAL_ERROR", "DRAINING", "BAD_FORMAT", "UNKNOWN_COMMAND":
		return nil, refusalError(text)
	}
	number, ok := strings.CutPrefix(text, "OK ")
	size, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil || size > maxBody {
		return nil, errForeign
	}
	body := make([]byte, size+2)
	if _, err := io.ReadFull(reader, body); err != nil {
		return nil, err
	}
	body, complete = bytes.CutSuffix(body, []byte("\r\n"))
	if !complete {
		return nil, errForeign
	}
	return body, nil
}

// parseStats reads the statistics of a tube: a line for each, its name and value separated by a colon and a space.
func parseStats(body []byte) (tubeStats, error) {
	var stats tubeStats
	wanted := map[string]*int64{
		"current-jobs-ready": &stats.ready, "current-jobs-reserved": &stats.reserved, "current-jobs-delayed": &stats.delayed,
	}
	for line := range strings.Lines(string(body)) {
		name, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		into := wanted[name]
		if into == nil {
			continue
		}
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil || number < 0 {
			return tubeStats{}, errForeign
		}
		*into = number
		delete(wanted, name)
	}
	if len(wanted) > 0 {
		return tubeStats{}, errForeign
	}
	return stats, nil
}
