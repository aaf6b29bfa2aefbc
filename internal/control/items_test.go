package control

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestItemsRoundTrip(t *testing.T) {
	t.Parallel()
	large := make([]byte, 10<<20)
	for i := range large {
		large[i] = byte(rand.Uint32())
	}
	many := make([][]byte, 5000)
	for i := range many {
		many[i] = bytes.Repeat([]byte{byte(i)}, i%100)
	}
	for name, items := range map[string][][]byte{
		"one":           {[]byte(`{"user": 1}`)},
		"empty":         {{}},
		"binary":        {{0, 1, 2, 0xff, ',', ':', '\n'}, []byte("12:")},
		"large":         {large},
		"large between": {[]byte("a"), large, []byte("b"), make([]byte, smallItem+1), make([]byte, smallItem)},
		"many":          many,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, size := encodeItems(items)
			wire, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(wire)) != size {
				t.Fatalf("%d bytes on the wire, announced %d", len(wire), size)
			}
			got, err := decodeItems(bytes.NewReader(wire), size)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(items) {
				t.Fatalf("got %d items, want %d", len(got), len(items))
			}
			for i := range got {
				if !bytes.Equal(got[i], items[i]) {
					t.Fatalf("item %d differs", i)
				}
			}
		})
	}
}

func TestDecodeItemsRefuses(t *testing.T) {
	t.Parallel()
	for wire, want := range map[string]string{
		"3:abc":                    "item 1: its length of 3 bytes is more than the request holds",
		"3:abc,x":                  `item 2: its length is not a decimal number followed by a colon, found 'x'`,
		":abc,":                    `item 1: its length is not a decimal number`,
		"03:abc,":                  `item 1: its length is not a decimal number`,
		"-3:abc,":                  `found '-'`,
		"3:abcd,":                  `a comma must follow its 3 bytes, found 'd'`,
		"99999999999999999999:a,":  "more than the request holds",
		"2:ab,0":                   "item 2: unexpected EOF",
		"18446744073709551617:ab,": "more than the request holds",
	} {
		_, err := decodeItems(strings.NewReader(wire), int64(len(wire)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", wire, err, want)
		}
	}
	_, err := decodeItems(strings.NewReader("3:abc"), 100)
	if err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("a body that ends early: got error %v", err)
	}
	tooMany := strings.Repeat("0:,", MaxPushItems+1)
	if _, err := decodeItems(strings.NewReader(tooMany), int64(len(tooMany))); err == nil ||
		!strings.Contains(err.Error(), "more than 1000000 items") {
		t.Errorf("too many items: got error %v", err)
	}
}

func FuzzDecodeItems(f *testing.F) {
	for _, seed := range []string{
		"", "0:,", "3:abc,", "11:{\"user\": 1},2:ab,", "9:,", "03:abc,", "3:abc;", "1:", "99999999999:a,",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		items, err := decodeItems(bytes.NewReader(wire), int64(len(wire)))
		if err != nil {
			return
		}
		r, size := encodeItems(items)
		again, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if size != int64(len(wire)) || !bytes.Equal(again, wire) {
			t.Fatalf("%q was read and written again as %q", wire, again)
		}
	})
}
