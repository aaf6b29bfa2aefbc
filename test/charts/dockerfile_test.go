package charts

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// dockerfile is what tools/dockerfile prints.
type dockerfile struct {
	Stages []struct {
		From, Platform, Name string
		Instructions         []struct {
			Name, Text string
			Args       []string
		}
	}
}

// readDockerfile reads the Dockerfile as BuildKit does.
func readDockerfile(t *testing.T) dockerfile {
	t.Helper()
	var file dockerfile
	if err := json.Unmarshal([]byte(dockerfileTool(t, "", "../../Dockerfile")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Stages) != 2 {
		t.Fatalf("there are %d stages, want 2", len(file.Stages))
	}
	return file
}

// dockerfileTool runs tools/dockerfile in its own folder.
func dockerfileTool(t *testing.T, input string, args ...string) string {
	t.Helper()
	out, err := run(t, input, []string{"CGO_ENABLED=0", "GOFLAGS="}, "go",
		append([]string{"run", "-C", "../../tools/dockerfile", "."}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	file := readDockerfile(t)
	build, final := file.Stages[0], file.Stages[1]
	if build.Platform != "$BUILDPLATFORM" || build.From != "golang:"+goVersion(t) {
		t.Errorf("it is built on %s for %s, want golang:%s, go.mod's Go, on the platform that builds",
			build.From, build.Platform, goVersion(t))
	}
	if final.From != "gcr.io/distroless/static:nonroot" {
		t.Errorf("the image is made from %s", final.From)
	}
	labels := map[string]string{}
	found := map[string][]string{}
	for _, instruction := range final.Instructions {
		switch instruction.Name {
		case "run":
			t.Errorf("the image has no shell that could do %q", instruction.Text)
		case "label":
			for _, pair := range instruction.Args {
				key, value, _ := strings.Cut(pair, "=")
				labels[strings.Trim(key, `"`)] = strings.Trim(value, `"`)
			}
		default:
			found[instruction.Name] = instruction.Args
		}
	}
	if !slices.Equal(found["user"], []string{"65532:65532"}) || !slices.Equal(found["entrypoint"], []string{"/offboard"}) {
		t.Errorf("it runs %v as %v", found["entrypoint"], found["user"])
	}
	for _, name := range []string{"title", "description", "source", "licenses", "version"} {
		if labels["org.opencontainers.image."+name] == "" {
			t.Errorf("the label %s is missing: %v", name, labels)
		}
	}
}

// goVersion returns the major and minor version of Go that go.mod asks for.
func goVersion(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if version, ok := strings.CutPrefix(strings.TrimSpace(line), "go "); ok {
			return strings.Join(strings.Split(version, ".")[:2], ".")
		}
	}
	t.Fatal("go.mod names no version of Go")
	return ""
}

// TestDockerfileBuilds does what the builder stage does, in a folder with what the build would see and no more. What
// comes out must be a program that needs no library. It is built for this machine's architecture only, since the other
// one is compiled by scripts/cross, and compiling everything twice would take minutes.
func TestDockerfileBuilds(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "offboard")
	context := buildContext(t)
	built := 0
	for _, instruction := range readDockerfile(t).Stages[0].Instructions {
		if instruction.Name != "run" || !strings.Contains(instruction.Text, "go build") {
			continue
		}
		built++
		line := strings.ReplaceAll(instruction.Args[0], "/out/offboard", out)
		command := exec.CommandContext(t.Context(), "/bin/sh", "-c", line)
		command.Dir = context
		command.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH, "VERSION=1.2.3", "GOFLAGS=")
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, output)
		}
	}
	if built != 1 {
		t.Fatalf("the builder stage builds %d times", built)
	}
	static(t, out)
	if runtime.GOOS == "linux" {
		if said, err := run(t, "", nil, out, "--version"); err != nil || !strings.Contains(said, "1.2.3") {
			t.Errorf("--version: %q, %v", said, err)
		}
	}
}

// static wants a program for Linux that no dynamic linker is needed for.
func static(t *testing.T, path string) {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Errorf("it has a segment %s: it is not static", segment.Type)
		}
	}
}

// buildContext copies what .dockerignore lets through.
func buildContext(t *testing.T) string {
	t.Helper()
	root := filepath.Join("..", "..")
	var paths strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir() && (relative == ".git" || relative == ".cache"):
			return fs.SkipDir
		case entry.Type().IsRegular():
			fmt.Fprintln(&paths, filepath.ToSlash(relative))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	context := t.TempDir()
	for path := range strings.FieldsSeq(dockerfileTool(t, paths.String(), "-ignore", "../../.dockerignore")) {
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(context, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(context, path), data, 0o600); err != nil {
			t.Fatal(err)
		}
		top, _, nested := strings.Cut(path, "/")
		if !slices.Contains([]string{"api", "cmd", "examples", "internal"}, top) && (nested || !strings.HasPrefix(path, "go.")) {
			t.Errorf("the build sees %s, which it does not need", path)
		}
	}
	return context
}
