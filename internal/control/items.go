package control

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// Items travel as netstrings (https://cr.yp.to/proto/netstrings.txt), one after the other: the length in decimal
// digits, a colon, the bytes themselves, a comma. Any bytes pass unchanged, nothing grows, and a shell can write it.

const (
	itemsContentType = "application/vnd.offboard.items"
	// smallItem is the size in bytes up to which items are copied together, to be sent in few writes.
	smallItem = 16 << 10
)

// encodeItems returns the items' wire form and its length in bytes. Large items are not copied.
func encodeItems(items [][]byte) (io.Reader, int64) {
	var (
		segments net.Buffers
		small    bytes.Buffer
		total    int64
	)
	flush := func() {
		if small.Len() > 0 {
			segments = append(segments, bytes.Clone(small.Bytes()))
			small.Reset()
		}
	}
	for _, item := range items {
		head := strconv.Itoa(len(item)) + ":"
		total += int64(len(head)) + int64(len(item)) + 1
		small.WriteString(head)
		if len(item) <= smallItem {
			small.Write(item)
		} else {
			flush()
			segments = append(segments, item)
		}
		small.WriteByte(',')
		if small.Len() > 4*smallItem {
			flush()
		}
	}
	flush()
	return &segments, total
}

// decodeItems reads the wire form, of which there are size bytes, to its end.
func decodeItems(r io.Reader, size int64) ([][]byte, error) {
	var (
		br    = bufio.NewReaderSize(r, 64<<10)
		items [][]byte
		left  = size
	)
	for left > 0 {
		if len(items) == MaxPushItems {
			return nil, fmt.Errorf("more than %d items in one push", MaxPushItems)
		}
		item, n, err := decodeItem(br, left)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", len(items)+1, err)
		}
		items, left = append(items, item), left-n
	}
	return items, nil
}

// decodeItem reads one item that takes at most left bytes on the wire, and returns how many it took.
func decodeItem(br *bufio.Reader, left int64) (item []byte, n int64, err error) {
	length := int64(-1)
	for {
		c, err := br.ReadByte()
		if err != nil {
			return nil, 0, unexpected(err)
		}
		if n++; n > left {
			return nil, 0, io.ErrUnexpectedEOF
		}
		if c == ':' && length >= 0 {
			break
		}
		if c < '0' || c > '9' || length == 0 {
			return nil, 0, fmt.Errorf("its length is not a decimal number followed by a colon, found %q", c)
		}
		if length = max(length, 0)*10 + int64(c-'0'); length > left {
			return nil, 0, fmt.Errorf("its length of %d or more bytes is more than the request holds", length)
		}
	}
	if n += length + 1; n > left {
		return nil, 0, fmt.Errorf("its length of %d bytes is more than the request holds", length)
	}
	item = make([]byte, length)
	if _, err := io.ReadFull(br, item); err != nil {
		return nil, 0, unexpected(err)
	}
	end, err := br.ReadByte()
	if err != nil {
		return nil, 0, unexpected(err)
	}
	if end != ',' {
		return nil, 0, fmt.Errorf("a comma must follow its %d bytes, found %q", length, end)
	}
	return item, n, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
