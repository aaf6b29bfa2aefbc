package process

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzFrame reads any bytes as a frame, and what was read as it was written.
func FuzzFrame(f *testing.F) {
	for _, fields := range [][]string{{frameStart, "id"}, {frameSignal, "id", "15", mainProcess}, {"", "\x00\xff", ""}} {
		frame, err := encodeFrame(fields...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Add([]byte{0, 0, 0, 2, 0x80, 0x80})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < frameHeader {
			return
		}
		// A length that does not fit the rest is what a keeper that was killed leaves.
		fields, err := readFrame([frameHeader]byte{0, 0, 0, frame[3]}, bytes.NewReader(frame[frameHeader:]))
		if err != nil {
			return
		}
		again, err := encodeFrame(fields...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readFrame([frameHeader]byte(again), bytes.NewReader(again[frameHeader:]))
		if err != nil || !slices.Equal(got, fields) {
			t.Errorf("%q became %q, %v", fields, got, err)
		}
		var request startRequest
		if request.parse(fields) == nil && request.parse(request.fields()) != nil {
			t.Errorf("%q is a request that cannot be told", fields)
		}
	})
}
