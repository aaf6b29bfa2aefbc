package runner

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The part of the Redis protocol (https://redis.io/docs/latest/develop/reference/protocol-spec/) that a runner needs:
// commands of byte strings, and answers of version 2 of the protocol. What a server may answer is bounded, so that a
// hostile one can neither fill the memory nor the stack.

const (
	// maxBulk is the largest string in bytes that Redis holds.
	maxBulk = 512 << 20
	// maxLine is the longest line in bytes, such as the text of an error, that is accepted.
	maxLine = 64 << 10
	// maxText is how many bytes all strings of an answer may have: an item of the largest size and what is known of it.
	maxText = maxBulk + 1<<20
	// maxElements is how many values an answer may have, lists included; maxDepth is how deep lists may be nested.
	maxElements = 64 << 10
	maxDepth    = 8
)

// serverError is an error that the server answered with. Its first word is a code such as WRONGTYPE.
type serverError string

func (e serverError) Error() string { return string(e) }

// errProtocol means that the other side does not speak the Redis protocol.
var errProtocol = errors.New("the answer is not of the Redis protocol")

// appendCommand appends the wire form of a command.
func appendCommand(buf []byte, args ...string) []byte {
	buf = fmt.Appendf(buf, "*%d\r\n", len(args))
	for _, arg := range args {
		buf = fmt.Appendf(buf, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return buf
}

// readReply reads one answer that is not a list. A nil slice with a nil error is the null answer; a status or a number
// is its text.
func readReply(r *bufio.Reader) ([]byte, error) {
	kind, text, err := readHead(r)
	if err != nil {
		return nil, err
	}
	switch kind {
	case '-':
		return nil, serverError(text)
	case '+', ':':
		return []byte(text), nil
	case '_': // the null answer of version 3 of the protocol
		return nil, nil
	case '$':
		n, err := length(text, maxBulk)
		if err != nil || n < 0 {
			return nil, err
		}
		return readBulk(r, n)
	}
	return nil, unknownKind(kind)
}

// readValue reads one answer of any kind: nil, an int64, a string or an []any of these.
func readValue(r *bufio.Reader) (any, error) {
	reading := reading{r: r, text: maxText, elements: maxElements}
	return reading.value(0)
}

// reading is one answer on its way, with how much more of it is accepted.
type reading struct {
	r              *bufio.Reader
	text, elements int
}

func (d *reading) value(depth int) (any, error) {
	kind, text, err := readHead(d.r)
	if err != nil {
		return nil, err
	}
	if d.elements--; d.elements < 0 {
		return nil, fmt.Errorf("%w: it has more than %d values", errProtocol, maxElements)
	}
	switch kind {
	case '-':
		if depth > 0 {
			return nil, fmt.Errorf("%w: an error within a list", errProtocol)
		}
		return nil, serverError(text)
	case '_':
		return nil, nil
	case '+':
		return d.take(text)
	case ':':
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: the number %q", errProtocol, text)
		}
		return n, nil
	case '$':
		n, err := length(text, min(maxBulk, d.text))
		if err != nil || n < 0 {
			return nil, err
		}
		bytes, err := readBulk(d.r, n)
		if err != nil {
			return nil, err
		}
		return d.take(string(bytes))
	case '*':
		n, err := length(text, d.elements)
		if err != nil || n < 0 {
			return nil, err
		}
		return d.list(n, depth+1)
	}
	return nil, unknownKind(kind)
}

// take counts a string.
func (d *reading) take(text string) (any, error) {
	if d.text -= len(text); d.text < 0 {
		return nil, fmt.Errorf("%w: it has more than %d bytes", errProtocol, maxText)
	}
	return text, nil
}

// list reads n values. Memory grows with what arrives, not with what is announced.
func (d *reading) list(n, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: lists are nested deeper than %d", errProtocol, maxDepth)
	}
	values := []any{}
	for range n {
		value, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}

// readHead reads the line that an answer begins with: its kind, and the rest.
func readHead(r *bufio.Reader) (kind byte, text string, err error) {
	line, err := readLine(r)
	if err != nil {
		return 0, "", err
	}
	if line == "" {
		return 0, "", fmt.Errorf("%w: an empty line", errProtocol)
	}
	return line[0], line[1:], nil
}

// length returns the announced length, from 0 to most, or -1 for the null answer.
func length(text string, most int) (int, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < -1 || n > int64(most) {
		return 0, fmt.Errorf("%w: the length %q", errProtocol, text)
	}
	return int(n), nil
}

func unknownKind(kind byte) error { return fmt.Errorf("%w: it begins with %q", errProtocol, kind) }

// readBulk reads a string of n bytes and its end. Memory grows with what arrives, not with what is announced.
func readBulk(r *bufio.Reader, n int) ([]byte, error) {
	const step = 1 << 20
	value := make([]byte, 0, min(n, step))
	for len(value) < n {
		old := len(value)
		value = append(value, make([]byte, min(n-old, max(step, old)))...)
		if _, err := io.ReadFull(r, value[old:]); err != nil {
			return nil, ended(err)
		}
	}
	var end [2]byte
	if _, err := io.ReadFull(r, end[:]); err != nil {
		return nil, ended(err)
	}
	if end != [2]byte{'\r', '\n'} {
		return nil, fmt.Errorf("%w: %q instead of the end of a line", errProtocol, end)
	}
	return value, nil
}

// readLine reads up to the end of a line and returns it without that.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return "", fmt.Errorf("%w: a line of more than %d bytes", errProtocol, maxLine)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return "", ended(err)
		}
		break
	}
	if n := len(line); n < 2 || line[n-2] != '\r' {
		return "", fmt.Errorf("%w: a line does not end in CR LF", errProtocol)
	}
	return string(line[:len(line)-2]), nil
}

// ended turns the end of the stream in the middle of an answer into an error that says so.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return err
}
