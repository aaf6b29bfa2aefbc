package cli

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/term"
)

// statusLine keeps one line at the bottom of a terminal up to date while other lines are written above it. On anything
// but a terminal it shows nothing and only passes lines on.
type statusLine struct {
	out   io.Writer
	width func() int // nil when out is no terminal

	mu   sync.Mutex
	text string
}

func newStatusLine(out io.Writer) *statusLine {
	s := &statusLine{out: out}
	if isTerminal(out) {
		file := out.(interface{ Fd() uintptr })
		s.width = func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil || width < 20 {
				return 80
			}
			return width
		}
	}
	return s
}

// Write writes whole lines above the status line.
func (s *statusLine) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == "" {
		return s.out.Write(p)
	}
	if _, err := fmt.Fprint(s.out, "\r\x1b[K"); err != nil {
		return 0, err
	}
	n, err := s.out.Write(p)
	s.draw()
	return n, err
}

// set replaces the text; an empty one removes the line.
func (s *statusLine) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.width == nil || text == s.text {
		return
	}
	s.text = text
	s.draw()
}

func (s *statusLine) draw() {
	text := []rune(s.text)
	// A cell stays free, so that the cursor does not wrap, and two more for the ^C that the terminal shows.
	if room := s.width() - 3; len(text) > room {
		text = append(text[:room-1], '…')
	}
	// A terminal that is gone is noticed by whoever writes something that matters.
	_, _ = fmt.Fprintf(s.out, "\r\x1b[K%s", string(text))
}
