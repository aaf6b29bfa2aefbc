package logs

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

// Tail returns the end of the log at path, at most limit bytes of it, from the beginning of a line on unless a single
// line is longer. A log that does not exist is empty.
func Tail(path string, limit int) ([]byte, error) {
	segments, err := openAll(path)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	defer closeAll(segments)
	// One byte more tells whether the rest begins with a line.
	var parts [][]byte
	missing := int64(limit) + 1
	for _, s := range slices.Backward(segments) {
		part := make([]byte, min(missing, s.info.Size()))
		n, err := io.ReadFull(io.NewSectionReader(s, s.info.Size()-int64(len(part)), int64(len(part))), part)
		if err != nil {
			return nil, fmt.Errorf("read the end of log %s after %d bytes: %w", path, n, err)
		}
		parts = append(parts, part)
		if missing -= int64(len(part)); missing == 0 {
			break
		}
	}
	slices.Reverse(parts)
	tail := bytes.Join(parts, nil)
	if len(tail) <= limit {
		return tail, nil
	}
	if at := bytes.IndexByte(tail, '\n'); at >= 0 && at < len(tail)-1 {
		return tail[at+1:], nil
	}
	return tail[1:], nil
}
