package process_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// checkRecorded fails the test unless the exit of a kept container, and no other, was recorded as it was.
func checkRecorded(t *testing.T, spec process.Spec, want process.Exit) {
	t.Helper()
	recorded, err := process.ReadExits(spec.Kept.ExitPath)
	if err != nil || len(recorded) != 1 {
		t.Fatalf("recorded %+v, %v", recorded, err)
	}
	r := recorded[0]
	if r.Label != spec.Label || r.Container != spec.Kept.Container || r.Restarts != spec.Kept.Restarts ||
		r.Code != want.Code || r.Signal != want.Signal || r.Stopped ||
		r.FinishedAt.Before(r.StartedAt) || r.FinishedAt.After(want.FinishedAt) {
		t.Errorf("recorded %+v of %+v, want %+v", r, spec, want)
	}
}

// keptLabels are those of the containers that keeping starts, with their scripts, whose folder is $0. Those that end do
// so when there is a file "go".
var keptScripts = map[string]string{
	"good":   `until [ -e "$0/go" ]; do sleep 0.01; done; echo still here; echo end`,
	"bad":    `until [ -e "$0/go" ]; do sleep 0.01; done; exit 3`,
	"killed": `until [ -e "$0/go" ]; do sleep 0.01; done; kill -TERM $$`,
	"stays":  `trap 'exit 0' TERM; sleep 1000 & while :; do sleep 0.01; done`,
	"stopped": `trap 'echo asked; until [ -e "$0/go" ]; do sleep 0.01; done; exit 0' TERM; echo ready; ` +
		`while :; do sleep 0.01; done`,
}

// keeping plays a program that is killed: it starts keptScripts, has one of them stopped, and prints their process ids.
func keeping(args []string) error {
	k, err := process.OpenKeeper(context.Background(), filepath.Join(args[0], "keeper"))
	if err != nil {
		return err
	}
	for label, text := range keptScripts {
		p, err := process.Start(keptSpec(args[0], label, text, k))
		if err != nil {
			return err
		}
		if label == "stopped" {
			for !logHas(args[0], label, "ready") {
				time.Sleep(time.Millisecond)
			}
			p.Terminate(time.Hour)
			for !logHas(args[0], label, "asked") {
				time.Sleep(time.Millisecond)
			}
		}
		fmt.Println(label, p.PID())
	}
	return sleeper(nil)
}

func keptSpec(dir, label, text string, k *process.Keeper) process.Spec {
	return process.Spec{
		Args: []string{"/bin/sh", "-c", text, dir}, Env: path, Label: filepath.Base(dir) + "-" + label,
		LogPath: filepath.Join(dir, label+".log"),
		Kept:    &process.Kept{Keeper: k, ExitPath: filepath.Join(dir, "exits"), Container: "main", Restarts: 2},
	}
}

func logHas(dir, label, text string) bool {
	log, _ := os.ReadFile(filepath.Join(dir, label+".log"))
	return strings.Contains(string(log), text)
}

// startKeeping starts keeping below a shield, which takes orphans away from this program, and returns its process id
// and those of its containers.
func startKeeping(t *testing.T, dir string) (program int, pids map[string]int) {
	t.Helper()
	cmd := helperCommand("shield", "keeping", dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	pids = map[string]int{}
	for lines := bufio.NewScanner(stdout); len(pids) < len(keptScripts) && lines.Scan(); {
		fields := strings.Fields(lines.Text())
		pid := pidsIn(t, fields[len(fields)-1])[0]
		if len(fields) == 1 {
			program = pid
		} else {
			pids[fields[0]] = pid
		}
	}
	return program, pids
}

func recordedIn(t *testing.T, dir string) map[string]process.RecordedExit {
	t.Helper()
	list, err := process.ReadExits(filepath.Join(dir, "exits"))
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[string]process.RecordedExit{}
	for _, r := range list {
		if r.Container != "main" || r.Restarts != 2 {
			t.Errorf("recorded %+v", r)
		}
		recorded[strings.TrimPrefix(r.Label, filepath.Base(dir)+"-")] = r
	}
	return recorded
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// killProgram kills a program and waits until its keeper has another parent: then all of its threads are gone.
func killProgram(t *testing.T, program, keeper int) {
	t.Helper()
	kill(t, program)
	eventually(t, "the keeper is alone", func() bool {
		parent, err := exec.Command("ps", "-o", "ppid=", "-p", strconv.Itoa(keeper)).Output()
		return err == nil && strings.TrimSpace(string(parent)) != strconv.Itoa(program)
	})
}

// TestExitsOutliveTheProgram kills a program whose containers then end, or do not.
func TestExitsOutliveTheProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, pids := startKeeping(t, dir)
	killProgram(t, program, keeperOf(t, filepath.Join(dir, "keeper")))
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// They have run on, and end by themselves.
	eventually(t, "four exits", func() bool { return len(recordedIn(t, dir)) == 4 })
	opened, err := process.OpenKeeper(t.Context(), filepath.Join(dir, "keeper"))
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	recorded := recordedIn(t, dir)
	for label, want := range map[string]process.RecordedExit{
		"good": {}, "bad": {Code: 3}, "killed": {Code: 143, Signal: syscall.SIGTERM},
		"stays": {Code: 137, Signal: syscall.SIGKILL, Stopped: true}, "stopped": {Stopped: true},
	} {
		r := recorded[label]
		if r.Label == "" || r.Code != want.Code || r.Signal != want.Signal || r.Stopped != want.Stopped {
			t.Errorf("%s: recorded %+v, want %+v", label, r, want)
		}
		if process.Exists(pids[label]) {
			t.Errorf("%s is still there", label)
		}
	}
	if !logHas(dir, "good", "still here\nend\n") {
		t.Error("output that came after the program's end is not stored")
	}
}

// TestKeeperThatHangsIsEnded opens a keeper while the previous one does not react.
func TestKeeperThatHangsIsEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, pids := startKeeping(t, dir)
	old := keeperOf(t, filepath.Join(dir, "keeper"))
	killProgram(t, program, old)
	// Only now: what is stopped is continued when its parent ends.
	if err := syscall.Kill(old, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the keeper is stopped", func() bool { // not before it is asked to end
		state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(old)).Output()
		return err == nil && strings.HasPrefix(strings.TrimSpace(string(state)), "T")
	})
	opened, err := process.OpenKeeper(t.Context(), filepath.Join(dir, "keeper"))
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if len(recordedIn(t, dir)) != 0 {
		t.Errorf("recorded %+v", recordedIn(t, dir))
	}
	var labels []string
	for label := range pids {
		labels = append(labels, filepath.Base(dir)+"-"+label)
	}
	if err := process.KillLeftovers(t.Context(), labels, nil); err != nil {
		t.Fatal(err)
	}
	for label, pid := range pids {
		eventually(t, label+" is gone", func() bool { return !process.Exists(pid) })
	}
}

// keeperOf returns the process id of the keeper that the file tells of.
func keeperOf(t *testing.T, path string) int {
	t.Helper()
	var holder process.Recorded
	eventually(t, "the keeper says who it is", func() bool {
		text, _ := os.ReadFile(path)
		return json.Unmarshal(text, &holder) == nil
	})
	return holder.PID
}

// TestKeeperIsKilled kills the keeper of a program that lives: its containers end, and the next ones get a new one.
func TestKeeperIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock := filepath.Join(dir, "keeper")
	k, err := process.OpenKeeper(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	first := start(t, keptSpec(dir, "first", "sleep 1000 & echo $!; wait", k))
	second := start(t, keptSpec(dir, "second", "trap '' TERM HUP; echo ready; while :; do sleep 0.01; done", k))
	eventually(t, "they run", func() bool { return logHas(dir, "first", "\n") && logHas(dir, "second", "ready") })
	old := keeperOf(t, lock)
	// What it shares with this program does not end it.
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		if err := syscall.Kill(old, s); err != nil {
			t.Fatal(err)
		}
	}
	if exit := wait(t, start(t, keptSpec(dir, "third", "exit 3", k))); exit.Code != 3 {
		t.Errorf("got %v", exit)
	}
	kill(t, old)
	for _, p := range []*process.Process{first, second} {
		if exit := wait(t, p); exit.Code == 0 {
			t.Errorf("got %v", exit)
		}
	}
	child, err := os.ReadFile(filepath.Join(dir, "first.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(pidsIn(t, string(child)), first.PID(), second.PID()) {
		if process.Exists(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	eventually(t, "a container with a new keeper", func() bool {
		p, err := process.Start(keptSpec(dir, "fourth", "exit 4", k))
		var failed *process.StartError
		if errors.As(err, &failed) && failed.Temporary {
			return false // it was not noticed yet
		}
		return err == nil && wait(t, p).Code == 4
	})
	if now := keeperOf(t, lock); now == old {
		t.Error("the keeper is the one that was killed")
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

// TestKeptWhileKeepersAreKilled looks for containers that are lost, or that hang, when keepers die at any moment.
func TestKeptWhileKeepersAreKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock := filepath.Join(dir, "keeper")
	k, err := process.OpenKeeper(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var killing sync.WaitGroup
	killing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				var holder process.Recorded
				if text, err := os.ReadFile(lock); err == nil && json.Unmarshal(text, &holder) == nil {
					_ = syscall.Kill(holder.PID, syscall.SIGKILL)
				}
			}
		}
	})
	var running sync.WaitGroup
	for worker := range 8 {
		running.Go(func() {
			for n := range 20 {
				marker := filepath.Join(dir, fmt.Sprint(worker, "-", n))
				spec := keptSpec(dir, strconv.Itoa(worker), `: >"$1"; exit 7`, k)
				spec.Args = append(spec.Args, marker)
				p, err := process.Start(spec)
				var failed *process.StartError
				if errors.As(err, &failed) && failed.Temporary {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				exit := wait(t, p)
				_, ran := os.Stat(marker)
				if exit.Code == 0 || exit.Code == 7 && ran != nil {
					t.Errorf("got %v, and its marker: %v", exit, ran)
				}
			}
		})
	}
	running.Wait()
	close(stop)
	killing.Wait()
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

func TestStoppedIsRecorded(t *testing.T) {
	t.Parallel()
	for name, grace := range map[string]time.Duration{"SIGTERM": time.Minute, "SIGKILL": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := kept.script(t, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
			p := start(t, spec)
			eventually(t, "ready", func() bool { return output(t, spec) == "ready\n" })
			p.Terminate(grace)
			wait(t, p)
			if r, err := process.ReadExits(spec.Kept.ExitPath); err != nil || len(r) != 1 || !r[0].Stopped {
				t.Errorf("recorded %+v, %v", r, err)
			}
		})
	}
}

// TestArgumentsArriveAsTheyAre passes bytes that are no text, and as much as the system takes.
func TestArgumentsArriveAsTheyAre(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		t.Helper()
		odd := "\xff'\"\n\t$HOME é\x01"
		spec := w.script(t, "")
		spec.Args = []string{"sh", "-c", `printf '%s|' "$@" "$V" "${#W}"`, "sh", odd, "", odd}
		spec.Env = append([]string{"V=" + odd, "W=" + strings.Repeat("x", 100<<10)}, path...)
		for n := range 12 { // far more than fits into the buffer of a socket
			spec.Env = append(spec.Env, fmt.Sprint("W", n, "=", strings.Repeat("y", 100<<10)))
		}
		wait(t, start(t, spec))
		if got, want := output(t, spec), odd+"||"+odd+"|"+odd+"|102400|"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestTornRecords reads what writes that were cut short have left.
func TestTornRecords(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "exits")
	if exits, err := process.ReadExits(file); err != nil || len(exits) != 0 {
		t.Errorf("of no file: %+v, %v", exits, err)
	}
	whole := process.RecordedExit{Label: "uid", Container: "main", Code: 10, FinishedAt: time.Now()}
	line, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{
		"":                                       0,
		"\n" + string(line) + "\n":               1,
		"\n" + string(line):                      0,
		"\n" + string(line[:len(line)-1]) + "\n": 0,
		"\n" + string(line[:20]) + "\n" + string(line) + "\n": 1,
		"\n{}\n":                 0,
		"\x00\x00\x00\n":         0,
		"\n[1]\n" + `"x"` + "\n": 0,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if exits, err := process.ReadExits(file); err != nil || len(exits) != want {
			t.Errorf("of %q: %+v, %v", text, exits, err)
		}
	}
}
