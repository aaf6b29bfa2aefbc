package runner

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadReply(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3<<20)
	for wire, want := range map[string]string{
		"+OK\r\n":                         "OK",
		":12\r\n":                         "12",
		"$0\r\n\r\n":                      "",
		"$5\r\na\r\nb\xff\r\n":            "a\r\nb\xff",
		"$3145728\r\n" + long + "\r\n":    long,
		"$-1\r\n":                         "<nil>",
		"_\r\n":                           "<nil>",
		"-WRONGTYPE bad\r\n":              "error WRONGTYPE bad",
		"":                                "unexpected EOF",
		"$5\r\nab":                        "unexpected EOF",
		"$2\r\nab":                        "unexpected EOF",
		"+OK":                             "unexpected EOF",
		"$2\r\nabcd":                      "not of the Redis protocol",
		"$-2\r\n":                         "not of the Redis protocol",
		"$99999999999\r\n":                "not of the Redis protocol",
		"$x\r\n":                          "not of the Redis protocol",
		"HTTP/1.1 400\r\n":                "not of the Redis protocol",
		"+OK\n":                           "not of the Redis protocol",
		"\r\n":                            "not of the Redis protocol",
		strings.Repeat("x", maxLine+5000): "not of the Redis protocol",
	} {
		value, err := readReply(bufio.NewReaderSize(strings.NewReader(wire), 16))
		got := string(value)
		var fromServer serverError
		switch {
		case errors.As(err, &fromServer):
			got = "error " + err.Error()
		case err != nil:
			got = err.Error()
		case value == nil:
			got = "<nil>"
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%.40q: got %.60q, want %.60q", wire, got, want)
		}
	}
}

func TestAppendCommand(t *testing.T) {
	t.Parallel()
	got := string(appendCommand(nil, "LPOP", "a \r\n\x00ü"))
	if want := "*2\r\n$4\r\nLPOP\r\n$7\r\na \r\n\x00ü\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzReadReply(f *testing.F) {
	for _, seed := range []string{
		"+OK\r\n", ":1\r\n", "$3\r\nabc\r\n", "$-1\r\n", "-ERR x\r\n", "_\r\n", "*1\r\n$1\r\na\r\n", "$536870912\r\n", "$",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bufio.NewReader(bytes.NewReader(wire))
		value, err := readReply(r)
		if err != nil && value != nil {
			t.Fatalf("both a value and the error %v", err)
		}
		if err == nil && len(value) > len(wire) {
			t.Fatalf("a value of %d bytes from %d", len(value), len(wire))
		}
		_, _ = io.Copy(io.Discard, r)
	})
}
