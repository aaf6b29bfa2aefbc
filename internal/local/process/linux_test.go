package process_test

import (
	"bufio"
	"context"
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

// gone tells whether a process has ended; somebody else may still have to reap it.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// Daemons leave the session, and keep the output open.
func TestDaemonsEndWithTheirContainer(t *testing.T) { eachWay(t, testDaemonsEndWithTheirContainer) }

func testDaemonsEndWithTheirContainer(t *testing.T, w way) {
	for _, generations := range []int{1, 2, 5} {
		t.Run(strconv.Itoa(generations), func(t *testing.T) {
			t.Parallel()
			spec := w.script(t, "")
			pidFile := filepath.Join(spec.Dir, "pids")
			spec.Args = helperArgs(pidFile, strconv.Itoa(generations), "wait")
			spec.Env = helperEnv("daemon")
			if exit := wait(t, start(t, spec)); exit.Code != 0 {
				t.Fatalf("got %v: %s", exit, output(t, spec))
			}
			if got := output(t, spec); got != "started\n" {
				t.Errorf("got output %q", got)
			}
			pids, err := os.ReadFile(pidFile)
			if err != nil {
				t.Fatal(err)
			}
			list := pidsIn(t, string(pids))
			if len(list) != generations+1 {
				t.Fatalf("got pids %v", list)
			}
			for _, pid := range list {
				if syscall.Kill(pid, 0) == nil {
					t.Errorf("process %d is still there", pid)
				}
			}
		})
	}
}

func TestDaemonOfALiveContainerStays(t *testing.T) { eachWay(t, testDaemonOfALiveContainerStays) }

func testDaemonOfALiveContainerStays(t *testing.T, w way) {
	spec := w.script(t, `setsid sleep 1000 & echo $! >&2; (setsid true); while :; do sleep 1; done`)
	p := start(t, spec)
	eventually(t, "pid", func() bool { return strings.HasSuffix(output(t, spec), "\n") })
	pid := pidsIn(t, output(t, spec))[0]
	for range 50 {
		wait(t, start(t, w.script(t, "true")))
		process.Sweep()
	}
	if gone(pid) {
		t.Error("it was ended with another container")
	}
	p.Terminate(0)
	wait(t, p)
	if !gone(pid) {
		t.Error("it outlived its container")
	}
}

// Orphans that have ended must not stay zombies for as long as their container runs.
func TestOrphansAreReapedWhileTheContainerRuns(t *testing.T) {
	eachWay(t, testOrphansAreReapedWhileTheContainerRuns)
}

func testOrphansAreReapedWhileTheContainerRuns(t *testing.T, w way) {
	spec := w.script(t, "for i in 1 2 3 4 5 6 7 8 9; do (true &); done; (setsid true &); echo ready; exec sleep 1000")
	p := start(t, spec)
	eventually(t, "ready", func() bool { return output(t, spec) == "ready\n" })
	eventually(t, "no zombies", func() bool {
		process.Sweep()
		for _, pid := range process.Children() {
			environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if gone(pid) && len(environ) == 0 {
				return false
			}
		}
		return true
	})
	p.Terminate(0)
	if exit := wait(t, p); exit.Signal != syscall.SIGKILL {
		t.Errorf("got %v", exit)
	}
}

// Children that other parts of the program have started are neither killed nor reaped.
func TestOthersChildrenAreLeftAlone(t *testing.T) { eachWay(t, testOthersChildrenAreLeftAlone) }

func testOthersChildrenAreLeftAlone(t *testing.T, w way) {
	for range 20 {
		short := exec.Command("sh", "-c", "exit 3")
		long := exec.Command("sleep", "1000")
		long.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		for _, cmd := range []*exec.Cmd{short, long} {
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
		}
		wait(t, start(t, w.script(t, "(setsid sleep 1000 &)")))
		process.Sweep()
		if err := short.Wait(); short.ProcessState.ExitCode() != 3 {
			t.Errorf("got %v", err)
		}
		if gone(long.Process.Pid) {
			t.Error("it was killed")
		}
		if err := long.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = long.Wait()
	}
}

func TestFullDisk(t *testing.T) { eachWay(t, testFullDisk) }

func testFullDisk(t *testing.T, w way) {
	spec := w.script(t, "head -c 10000000 /dev/zero; exit 5")
	spec.LogPath = "/dev/full"
	exit := wait(t, start(t, spec))
	if exit.Code != 5 || exit.DroppedBytes != 10000000 || exit.DropError == nil {
		t.Errorf("got %+v", exit)
	}
}

func TestManyAtOnce(t *testing.T) { eachWay(t, testManyAtOnce) }

func testManyAtOnce(t *testing.T, w way) {
	var wg sync.WaitGroup
	for i := range 200 {
		spec := w.script(t, fmt.Sprintf("echo %d; sleep 1000 & (setsid sleep 1000 &); exit %d", i, i))
		wg.Go(func() {
			p, err := process.Start(spec)
			if err != nil {
				t.Error(err)
				return
			}
			if exit := p.Wait(); exit.Code != i {
				t.Errorf("got %v, want %d", exit, i)
			}
		})
	}
	wg.Wait()
}

func TestKillLeftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	labels := []string{"left-1-" + filepath.Base(dir), "left-2-" + filepath.Base(dir)}
	cmd := helperCommand("shield", append([]string{"parent", dir}, labels...)...)
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
	defer func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	var parent int
	var recorded []process.Recorded
	for lines := bufio.NewScanner(stdout); (parent == 0 || len(recorded) < 2) && lines.Scan(); {
		fields := strings.Fields(lines.Text())
		pid := pidsIn(t, fields[0])[0]
		if len(fields) == 1 {
			parent = pid
		} else {
			recorded = append(recorded, process.Recorded{PID: pid, StartID: fields[1]})
		}
	}
	var pids []int
	// The first one of each must have told that it has started, or it would be ended by doing so to nobody.
	eventually(t, "all processes", func() bool {
		var all, told string
		for _, label := range labels {
			text, _ := os.ReadFile(filepath.Join(dir, label+".pids"))
			log, _ := os.ReadFile(filepath.Join(dir, label+".log"))
			all, told = all+string(text), told+string(log)
		}
		pids = pidsIn(t, all)
		return len(pids) == 6 && strings.Count(told, "started") == 2
	})
	if err := syscall.Kill(parent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the parent is gone", func() bool { return gone(parent) })
	for _, pid := range pids {
		if gone(pid) {
			t.Fatalf("process %d has ended already", pid)
		}
	}
	other := exec.Command("sleep", "1000")
	other.Env = append(os.Environ(), process.LabelVar+"="+labels[0]+"-other")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	// A recorded pid that belongs to a stranger by now.
	recorded = append(recorded, process.Recorded{PID: other.Process.Pid, StartID: recorded[0].StartID})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	begin := time.Now()
	if err := process.KillLeftovers(ctx, labels, recorded); err != nil {
		t.Fatal(err)
	}
	t.Logf("took %v", time.Since(begin))
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	if gone(other.Process.Pid) {
		t.Error("a stranger was killed")
	}
	if err := process.KillLeftovers(ctx, labels, recorded); err != nil {
		t.Errorf("again: %v", err)
	}
	_ = other.Process.Kill()
	_ = other.Wait()
}
