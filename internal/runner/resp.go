package runner

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The part of the Redis protocol (https://redis.io/docs/latest/develop/reference/protocol-spec/) that a runner needs:
// commands of byte strings, and answers that are not nested.

const (
	// maxBulk is the largest string in bytes that Redis holds.
	maxBulk = 512 << 20
	// maxLine is the longest line in bytes, such as the text of an error, that is accepted.
	maxLine = 64 << 10
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

// readReply reads one answer. A nil slice with a nil error is the null answer; a status or a number is its text.
func readReply(r *bufio.Reader) ([]byte, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	if len(line) == 0 {
		return nil, fmt.Errorf("%w: an empty line", errProtocol)
	}
	kind, text := line[0], line[1:]
	switch kind {
	case '-':
		return nil, serverError(text)
	case '+', ':':
		return []byte(text), nil
	case '_': // the null answer of version 3 of the protocol
		return nil, nil
	case '$':
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil || n < -1 || n > maxBulk:
			return nil, fmt.Errorf("%w: the length %q", errProtocol, text)
		case n == -1:
			return nil, nil
		}
		return readBulk(r, int(n))
	}
	return nil, fmt.Errorf("%w: it begins with %q", errProtocol, kind)
}

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
