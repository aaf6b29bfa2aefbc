package process_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// helperVar makes this test binary be one of the programs in helpers.
const helperVar = "OFFBOARD_TEST_HELPER"

func TestMain(m *testing.M) {
	if process.IsKeeper(os.Args) {
		os.Exit(process.Keep())
	}
	if name := os.Getenv(helperVar); name != "" {
		if err := helpers[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := process.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The first container opens what stays open: the null device and the runtime's poller.
	first, err := process.Start(process.Spec{Args: []string{"true"}, LogPath: os.DevNull})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	first.Wait()
	before := openDescriptors()
	code := runWithKeeper(m)
	// What ends may take a moment.
	settled := func() bool { return len(openDescriptors()) == len(before) && len(process.Children()) == 0 }
	for deadline := time.Now().Add(20 * time.Second); !settled() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if after := openDescriptors(); code == 0 && len(after) != len(before) {
		fmt.Fprintf(os.Stderr, "file descriptors leak: %v before the tests, %v after\n", before, after)
		code = 1
	}
	if left := process.Children(); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "children are left: %v\n", left)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// keeper is that of the tests which do not kill theirs.
var keeper *process.Keeper

func runWithKeeper(m *testing.M) int {
	dir, err := os.MkdirTemp("", "keeper")
	if err == nil {
		defer os.RemoveAll(dir)
		keeper, err = process.OpenKeeper(context.Background(), filepath.Join(dir, "keeper"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := keeper.Close(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

func openDescriptors() []string {
	entries, _ := filepath.Glob("/dev/fd/*")
	return entries
}

var helpers = map[string]func(args []string) error{
	"daemon": daemon, "sleeper": sleeper, "parent": parent, "shield": shield, "keeping": keeping,
}

// helperArgs is the command of a helper.
func helperArgs(args ...string) []string { return append([]string{os.Args[0]}, args...) }

// helperEnv is the environment of a helper.
func helperEnv(name string) []string { return []string{helperVar + "=" + name, "PATH=/usr/bin:/bin"} }

func helperCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperVar+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// daemon starts args[1] generations of processes, each in a session of its own, that append their pids to the file
// args[0] and keep the output open, and exits.
func daemon(args []string) error {
	generations, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if generations > 0 {
		cmd := helperCommand("daemon", args[0], strconv.Itoa(generations-1))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(file, os.Getpid()); err != nil {
		return err
	}
	if len(args) > 2 { // the first one waits until all have told their pids
		for {
			pids, _ := os.ReadFile(args[0])
			if strings.Count(string(pids), "\n") == generations+1 {
				fmt.Println("started")
				return nil
			}
			time.Sleep(time.Millisecond)
		}
	}
	return sleeper(nil)
}

func sleeper([]string) error {
	time.Sleep(time.Hour)
	return nil
}

// parent starts containers labelled args[1:] that start further processes, tells what to record, and sleeps.
func parent(args []string) error {
	for _, label := range args[1:] {
		p, err := process.Start(process.Spec{
			Args:    helperArgs(filepath.Join(args[0], label+".pids"), "2", "wait"),
			Env:     helperEnv("daemon-that-stays"),
			Label:   label,
			LogPath: filepath.Join(args[0], label+".log"),
		})
		if err != nil {
			return err
		}
		fmt.Println(p.PID(), p.StartID())
	}
	return sleeper(nil)
}

func init() {
	helpers["daemon-that-stays"] = func(args []string) error {
		if err := os.Setenv(helperVar, "daemon"); err != nil {
			return err
		}
		if err := daemon(args); err != nil {
			return err
		}
		return sleeper(nil)
	}
}

// shield runs a helper and stays until its own standard input ends. It takes the orphans, so that the tests' own
// sweeping does not.
func shield(args []string) error {
	if err := process.BecomeSubreaper(); err != nil {
		return err
	}
	cmd := helperCommand(args[0], args[1:]...)
	cmd.Stdout = os.Stdout
	// What it leaves behind is the tests' in the end, who reap only what is not of their own session.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println(cmd.Process.Pid)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	_ = cmd.Wait() // the test has killed it
	return nil
}
