package queuetest

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Awkward is an item that a variable cannot hold, or that looks like something else.
type Awkward struct {
	// Name says to people what is special.
	Name string
	// Item are its bytes, and File tells whether a Job gets them as a file although it asks for a variable.
	Item []byte
	File bool
}

// AwkwardItems returns one of each kind. The largest is larger than a Secret may be.
func AwkwardItems() []Awkward {
	large := make([]byte, 5<<20)
	random := rand.NewChaCha8(sha256.Sum256([]byte("item")))
	_, _ = random.Read(large) // never fails
	return []Awkward{
		{"5 MB", large, true},
		{"quotes", []byte("'single' \"double\" `back` \\ \n\ttab and $(HOME) $HOME $$ ${HOME} $(OFFBOARD_ITEM_ID)"), false},
		{"NUL", []byte("a\x00b"), true},
		{"not UTF-8", []byte("a\xff\xfeb"), true},
		{"empty", []byte(""), false},
		{"96 KiB", bytes.Repeat([]byte("x"), 96<<10), false},
		{"over 96 KiB", bytes.Repeat([]byte("x"), 96<<10+1), true},
	}
}

// KeepScript is what a run does, in a shell: it keeps its item in the folder, under a name that tells how it came.
func KeepScript(dir string) string {
	return `if [ -n "$OFFBOARD_ITEM_FILE" ]; then cat "$OFFBOARD_ITEM_FILE" > ` + dir + `/$OFFBOARD_ITEM_ID.file; fi; ` +
		`if [ -n "${OFFBOARD_ITEM+set}" ]; then printf %s "$OFFBOARD_ITEM" > ` + dir + `/$OFFBOARD_ITEM_ID.env; fi`
}

// CheckKept wants one run to have kept the item in the folder, and removes what it has kept.
func (a Awkward) CheckKept(t *testing.T, dir string) {
	t.Helper()
	kind := ".env"
	if a.File {
		kind = ".file"
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || filepath.Ext(files[0].Name()) != kind {
		t.Fatalf("%s: the item came as %v, %v, want the %s alone", a.Name, files, err, kind)
	}
	path := filepath.Join(dir, files[0].Name())
	if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, a.Item) {
		t.Errorf("%s: it has %d bytes, %v, want %d", a.Name, len(content), err, len(a.Item))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
