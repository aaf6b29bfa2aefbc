package redis

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of what a server may send. Its answers here are numbers, short texts and names of keys.
const (
	maxLine     = 64 << 10
	maxBulk     = 16 << 20
	maxItem     = 512 << 20 // what Redis itself takes (proto-max-bulk-len)
	maxElements = 64 << 10
	maxDepth    = 8
)

// invalidation is how every notice of changed keys begins. No other push is asked for.
const invalidation = "$10\r\ninvalidate\r\n"

// kinds are the first bytes of messages. The streamed types and attributes, which Redis does not send, are left out.
const kinds = "+-:_#,($=!*~%>"

// frames follows a stream of RESP3 messages (https://redis.io/docs/latest/develop/reference/protocol-spec) and counts
// them. It is what stands between rueidis and a server that is not, or does not want to be, a Redis: rueidis trusts
// lengths and the order of answers, and panics where a server breaks them, which would end the whole process.
type frames struct {
	// complete is how many messages have ended, pushes not counted.
	complete int
	// line is the beginning of a line that has not ended yet.
	line []byte
	// body is how many bytes of a bulk string, its line end included, are still to come.
	body int64
	// open holds for each aggregate that has begun how many elements are still to come, the innermost last.
	open []int64
	// push tells that the outermost aggregate is a push; expect is what must come next in it.
	push   bool
	expect string
	// unlimited lifts the limits on sizes, for what this process itself sends; large lets items pass.
	unlimited bool
	large     bool
}

// feed takes the next bytes of the stream. An error means that the stream must not be used any more.
func (f *frames) feed(stream []byte) error {
	for len(stream) > 0 {
		switch {
		case f.expect != "":
			n := min(len(f.expect), len(stream))
			if string(stream[:n]) != f.expect[:n] {
				return errors.New("sends a push that is no notice of changed keys")
			}
			f.expect, stream = f.expect[n:], stream[n:]
			if f.expect == "" {
				f.end()
			}
		case f.body > 0:
			n := min(f.body, int64(len(stream)))
			f.body, stream = f.body-n, stream[n:]
			if f.body == 0 {
				f.end()
			}
		default:
			end := bytes.IndexByte(stream, '\n')
			length := end + 1
			if end < 0 {
				length = len(stream)
			}
			if len(f.line)+length > maxLine {
				return errors.New("sends a line that is too long")
			}
			f.line, stream = append(f.line, stream[:length]...), stream[length:]
			if end < 0 {
				return f.beginning(f.line)
			}
			if err := f.begin(f.line); err != nil {
				return err
			}
			f.line = f.line[:0]
		}
	}
	return nil
}

// beginning takes a line that has not ended yet. It goes to rueidis already, which does not look for the end of some.
func (f *frames) beginning(line []byte) error {
	text := string(line)
	switch kind := line[0]; {
	case !strings.ContainsRune(kinds, rune(kind)):
		return errUnknownKind(kind)
	case kind == '_' && !strings.HasPrefix("_\r\n", text),
		kind == '#' && !strings.HasPrefix("#t\r\n", text) && !strings.HasPrefix("#f\r\n", text):
		return errors.New("sends a value that is none")
	default:
		return nil
	}
}

func errUnknownKind(kind byte) error {
	return fmt.Errorf("does not speak the protocol of Redis: a message begins with %q", kind)
}

// begin takes the first line of a message or of an element of one.
func (f *frames) begin(line []byte) error {
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return errors.New("sends a line that does not end as the protocol demands")
	}
	kind, text := line[0], string(line[1:len(line)-2])
	if f.push && len(f.open) == 1 && kind != '*' && kind != '_' {
		return errors.New("sends a notice without a list of keys")
	}
	switch kind {
	case '+', '-', ',', '(':
		f.end()
	case ':':
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return errors.New("sends a number that is none")
		}
		f.end()
	case '_':
		if text != "" {
			return errors.New("sends a null that is none")
		}
		f.end()
	case '#':
		if text != "t" && text != "f" {
			return errors.New("sends a boolean that is none")
		}
		f.end()
	case '$', '=', '!':
		most := int64(maxBulk)
		if f.large {
			most = maxItem
		}
		size, err := f.length(text, most, true)
		if err != nil {
			return err
		}
		if size < 0 {
			f.end()
			return nil
		}
		f.body = size + 2
	case '*', '~', '%', '>':
		return f.beginAggregate(kind, text)
	default:
		return errUnknownKind(kind)
	}
	return nil
}

func (f *frames) beginAggregate(kind byte, text string) error {
	size, err := f.length(text, maxElements, kind == '*')
	if err != nil {
		return err
	}
	switch {
	case size < 0:
		f.end()
		return nil
	case kind == '%':
		size *= 2
	case kind == '>':
		if len(f.open) > 0 || size != 2 {
			return errors.New("sends a push that is no notice of changed keys")
		}
		f.push, f.expect = true, invalidation
	}
	if len(f.open) == maxDepth {
		return errors.New("sends lists within lists too deep")
	}
	if size == 0 {
		f.end()
		return nil
	}
	f.open = append(f.open, size)
	return nil
}

// end counts a message or an element that is complete, and with it those that it completes.
func (f *frames) end() {
	for len(f.open) > 0 {
		last := len(f.open) - 1
		f.open[last]--
		if f.open[last] > 0 {
			return
		}
		f.open = f.open[:last]
	}
	if f.push {
		f.push = false
		return
	}
	f.complete++
}

// length returns a size as the protocol writes it; -1 stands for null where that is allowed.
func (f *frames) length(text string, most int64, null bool) (int64, error) {
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < -1 || (size == -1 && !null) {
		return 0, errors.New("sends a length that is none")
	}
	if size > most && !f.unlimited {
		return 0, fmt.Errorf("sends more than is expected of it: a length of %d", size)
	}
	return size, nil
}
