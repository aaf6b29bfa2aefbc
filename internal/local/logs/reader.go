package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Options choose what of a log is read.
type Options struct {
	// TailLines is the number of last lines to begin with; nil means the whole log. An unfinished last line counts.
	TailLines *int64
	// Follow, if not nil, makes the reader wait for more at the end of the log for as long as Follow returns true. It
	// must return false only once everything is written. It is called from Read, at most every 100 ms.
	Follow func() bool
}

// pollInterval is how often a following reader looks for more. It is short enough to feel live, and unlike a notice
// from the file system it works on every file system.
const pollInterval = 100 * time.Millisecond

// tailBlock is how many bytes at a time are searched for the beginning of the last lines.
const tailBlock = 64 << 10

// Reader reads a log across its files. It is for one goroutine. Output that was rotated away before it could be read is
// skipped.
type Reader struct {
	ctx      context.Context
	path     string
	follow   func() bool
	segments []*segment
}

// Open opens the log at path; one that does not exist (yet) is empty. Without Follow, what is written after Open is not
// read, so that a fast writer cannot keep the reader from its end. Read fails with the error of ctx after that has
// ended. The caller closes the Reader.
func Open(ctx context.Context, path string, opts Options) (*Reader, error) {
	segments, err := openAll(path)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	r := &Reader{ctx: ctx, path: path, follow: opts.Follow, segments: segments}
	if opts.TailLines != nil {
		if err := r.skipToTail(*opts.TailLines); err != nil {
			closeAll(r.segments)
			return nil, fmt.Errorf("find the last %d lines of log %s: %w", *opts.TailLines, path, err)
		}
	}
	return r, nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.readSegments(p)
		if n > 0 || err != nil {
			return n, err
		}
		if r.follow == nil {
			return 0, io.EOF
		}
		n, more, err := r.readMore(p)
		if n > 0 || err != nil {
			return n, err
		}
		if !more {
			return 0, io.EOF
		}
	}
}

// readSegments reads from the open files; 0 and no error say that their end is reached. The last one is kept open when
// following, since it may grow.
func (r *Reader) readSegments(p []byte) (int, error) {
	for len(r.segments) > 0 {
		s := r.segments[0]
		part := p
		if r.follow == nil {
			offset, err := s.Seek(0, io.SeekCurrent)
			if err != nil {
				return 0, err
			}
			part = p[:max(0, min(int64(len(p)), s.info.Size()-offset))]
		}
		n, err := s.Read(part)
		if n > 0 || (err != nil && !errors.Is(err, io.EOF)) {
			return n, err
		}
		if r.follow != nil && len(r.segments) == 1 {
			return 0, nil
		}
		closeAll(r.segments[:1])
		r.segments = r.segments[1:]
	}
	return 0, nil
}

// readMore looks for output beyond the open files, and waits a little if there is none yet. The order matters: a file
// is complete only if it is read to its end after it was seen to be rotated, and the log only after Follow was false.
func (r *Reader) readMore(p []byte) (n int, more bool, err error) {
	more = r.follow()
	rotated := r.rotated()
	if n, err = r.readSegments(p); n > 0 || err != nil {
		return n, true, err
	}
	if rotated {
		found, err := r.openNext()
		if err != nil || found {
			return 0, true, err
		}
	}
	if !more {
		return 0, false, nil
	}
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	}
	return 0, true, nil
}

// rotated tells whether the newest file is another one than the last that is open.
func (r *Reader) rotated() bool {
	if len(r.segments) == 0 {
		return true
	}
	info, err := os.Stat(r.path)
	return err != nil || !os.SameFile(info, r.segments[len(r.segments)-1].info)
}

// openNext replaces the last open file by those that follow it, and tells whether there are any.
func (r *Reader) openNext() (bool, error) {
	all, err := openAll(r.path)
	if err != nil {
		return false, fmt.Errorf("follow log %s: %w", r.path, err)
	}
	next := all
	if len(r.segments) > 0 {
		for i, s := range all {
			if os.SameFile(s.info, r.segments[0].info) {
				closeAll(all[:i+1])
				next = all[i+1:]
				break
			}
		}
	}
	if len(next) == 0 {
		return false, nil
	}
	closeAll(r.segments)
	r.segments = next
	return true, nil
}

// skipToTail positions the reader before the last lines, reading backwards block by block.
func (r *Reader) skipToTail(lines int64) error {
	block := make([]byte, tailBlock)
	// The newline that ends the log ends its last line and begins none, so it is not counted.
	last := true
	for i := len(r.segments) - 1; i >= 0; i-- {
		s := r.segments[i]
		for end := s.info.Size(); end > 0; {
			start := max(0, end-tailBlock)
			part := block[:end-start]
			if _, err := io.ReadFull(io.NewSectionReader(s, start, end-start), part); err != nil {
				return err
			}
			for len(part) > 0 {
				if lines <= 0 {
					return r.startAt(i, start+int64(len(part)))
				}
				at := bytes.LastIndexByte(part, '\n')
				if last && at == len(part)-1 {
					part, last = part[:at], false
					continue
				}
				last = false
				if at < 0 {
					break
				}
				if lines--; lines == 0 {
					return r.startAt(i, start+int64(at)+1)
				}
				part = part[:at]
			}
			end = start
		}
	}
	return nil
}

func (r *Reader) startAt(index int, offset int64) error {
	closeAll(r.segments[:index])
	r.segments = r.segments[index:]
	_, err := r.segments[0].Seek(offset, io.SeekStart)
	return err
}

// Close closes the files.
func (r *Reader) Close() error {
	closeAll(r.segments)
	r.segments = nil
	return nil
}
