package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What this program and its keeper tell each other are frames: the length in four bytes, then strings, each with its
// length in front, which hold any bytes, as arguments and environments do. The first names the kind. Descriptors come
// with the first byte of a frame.
const (
	frameStart   = "start"   // to the keeper: id and what startRequest.fields says, with the output's two descriptors
	frameSignal  = "signal"  // to the keeper: id, number, "group" or "main"
	frameStarted = "started" // from the keeper: id, pid, startID, errno (0 when it runs)
	frameEnded   = "ended"   // from the keeper: id, wait status
)

const (
	wholeGroup  = "group"
	mainProcess = "main"
)

const (
	frameHeader = 4
	// maxFrame is more than a system takes as arguments and environment.
	maxFrame = 256 << 20
)

var errFrame = errors.New("a frame is broken")

func encodeFrame(fields ...string) ([]byte, error) {
	size := frameHeader
	for _, f := range fields {
		size += binary.MaxVarintLen32 + len(f)
	}
	if size > maxFrame {
		return nil, fmt.Errorf("%d bytes are too many for a command with its environment", size)
	}
	frame := make([]byte, frameHeader, size)
	for _, f := range fields {
		frame = append(binary.AppendUvarint(frame, uint64(len(f))), f...)
	}
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-frameHeader))
	return frame, nil
}

// readFrame reads a frame whose header was read already.
func readFrame(header [frameHeader]byte, rest io.Reader) ([]string, error) {
	size := binary.BigEndian.Uint32(header[:])
	if size > maxFrame {
		return nil, errFrame
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(rest, payload); err != nil {
		return nil, err
	}
	var fields []string
	for len(payload) > 0 {
		length, n := binary.Uvarint(payload)
		if n <= 0 || length > uint64(len(payload)-n) {
			return nil, errFrame
		}
		end := n + int(length)
		fields, payload = append(fields, string(payload[n:end])), payload[end:]
	}
	if len(fields) < 2 {
		return nil, errFrame
	}
	return fields, nil
}
