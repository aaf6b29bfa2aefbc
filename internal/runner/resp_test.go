package runner

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
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

func TestReadValue(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("*1\r\n", n) + ":7\r\n" }
	for wire, want := range map[string]string{
		":12\r\n":                              "12",
		":-1\r\n":                              "-1",
		"+OK\r\n":                              `"OK"`,
		"$5\r\na\r\nb\xff\r\n":                 `"a\r\nb\xff"`,
		"$0\r\n\r\n":                           `""`,
		"$-1\r\n":                              "<nil>",
		"*-1\r\n":                              "<nil>",
		"_\r\n":                                "<nil>",
		"*0\r\n":                               "[]",
		"*3\r\n:1\r\n$-1\r\n*1\r\n$1\r\na\r\n": `[1 <nil> ["a"]]`,
		deep(maxDepth):                         strings.Repeat("[", maxDepth) + "7" + strings.Repeat("]", maxDepth),
		"-NOSCRIPT none\r\n":                   "error NOSCRIPT none",
		deep(maxDepth + 1):                     "nested deeper",
		strings.Repeat("*1\r\n", 1<<20):        "nested deeper",
		"*2\r\n:1\r\n-ERR x\r\n":               "an error within a list",
		"*2\r\n:1\r\n":                         "unexpected EOF",
		"*99999999\r\n":                        `the length "99999999"`,
		"*2\r\n*65533\r\n" + strings.Repeat("_\r\n", 65533) + "*1\r\n_\r\n": `the length "1"`,
		"*2\r\n*65534\r\n" + strings.Repeat("_\r\n", 65534) + "_\r\n":       "more than 65536 values",
		"*-2\r\n":          "the length",
		"$536870913\r\n":   "the length",
		":x\r\n":           `the number "x"`,
		"%1\r\n":           "it begins with '%'",
		"HTTP/1.1 400\r\n": "not of the Redis protocol",
		"":                 "unexpected EOF",
		"*2\r\n$3\r\nabc":  "unexpected EOF",
	} {
		value, err := readValue(bufio.NewReaderSize(strings.NewReader(wire), 16))
		got := show(value)
		var fromServer serverError
		switch {
		case errors.As(err, &fromServer):
			got = "error " + err.Error()
		case err != nil:
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%.40q: got %.60q, want %.60q", wire, got, want)
		}
	}
}

func TestAnswerOfTooMuchText(t *testing.T) {
	t.Parallel()
	d := reading{r: bufio.NewReader(strings.NewReader("*2\r\n$3\r\nabc\r\n+defg\r\n")), text: 6, elements: 3}
	if value, err := d.value(0); value != nil || !errors.Is(err, errProtocol) {
		t.Errorf("got %v, %v", value, err)
	}
	d = reading{r: bufio.NewReader(strings.NewReader("*2\r\n$3\r\nabc\r\n$4\r\ndefg\r\n")), text: 6, elements: 3}
	if value, err := d.value(0); value != nil || !errors.Is(err, errProtocol) {
		t.Errorf("got %v, %v", value, err)
	}
}

// show writes a value as fmt does, with texts in quotes.
func show(value any) string {
	if list, ok := value.([]any); ok {
		var all []string
		for _, v := range list {
			all = append(all, show(v))
		}
		return "[" + strings.Join(all, " ") + "]"
	}
	if text, ok := value.(string); ok {
		return strconv.Quote(text)
	}
	return fmt.Sprint(value)
}

// weigh returns how many values there are, and how many bytes of text.
func weigh(value any) (values, text int) {
	switch v := value.(type) {
	case string:
		return 1, len(v)
	case []any:
		values = 1
		for _, element := range v {
			n, m := weigh(element)
			values, text = values+n, text+m
		}
		return values, text
	}
	return 1, 0
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

func FuzzReadValue(f *testing.F) {
	for _, seed := range []string{
		"+OK\r\n", ":1\r\n", "$3\r\nabc\r\n", "$-1\r\n", "-ERR x\r\n", "_\r\n", "*1\r\n$1\r\na\r\n", "*-1\r\n",
		"*3\r\n:-1\r\n:2\r\n*1\r\n*3\r\n$2\r\nid\r\n$2\r\n{}\r\n*1\r\n$1\r\nx\r\n", "*99999\r\n", "*1\r\n*1\r\n*1\r\n", "*1\r\n-E\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		value, err := readValue(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil && value != nil {
			t.Fatalf("both a value and the error %v", err)
		}
		if values, text := weigh(value); err == nil && (3*values > len(wire) || text > len(wire)) {
			t.Fatalf("%d values with %d bytes from %d", values, text, len(wire))
		}
	})
}
