package manifest

import (
	"os"
	"path/filepath"
	"testing"
)

func BenchmarkParseAndValidate(b *testing.B) {
	data, err := os.ReadFile(filepath.Join("testdata", "usertask.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		Validate(Parse("usertask.yaml", data), nil)
	}
}
