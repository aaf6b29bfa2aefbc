// Command cmd keeps a control plane with a kubelet running in the background, for a person to try things on:
// `make cluster` and `make cluster-stop`.
//
//	cmd start DIR    start one, unless one runs, and print the path of its kubeconfig
//	cmd stop DIR     stop it
//	cmd run DIR      start one and keep it until SIGTERM or SIGINT: what start does in the background
//
// DIR holds its state: the data is not kept over a stop.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/offboard-dev/offboard/test/controlplane"
)

// stopTimeout is how long a control plane may take to end.
const stopTimeout = 2 * time.Minute

// started is what run writes to its standard output when the control plane answers.
const started = "started"

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: cmd start|stop|run DIR")
	}
	dir, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	switch args[0] {
	case "start":
		return start(dir)
	case "stop":
		return stop(dir)
	case "run":
		return run(dir)
	default:
		return fmt.Errorf("unknown command %q: it must be start, stop or run", args[0])
	}
}

func dataDir(dir string) string { return filepath.Join(dir, "data") }

func logPath(dir string) string { return filepath.Join(dir, "cluster.log") }

// start runs this program anew, in the background, and waits until its control plane answers.
func start(dir string) error {
	pid, err := holder(dir)
	if err != nil {
		return err
	}
	if pid == 0 {
		if pid, err = launch(dir); err != nil {
			return err
		}
	}
	fmt.Printf("A Kubernetes control plane with a node runs as process %d; its log is %s\n", pid, logPath(dir))
	fmt.Println("Stop it with `make cluster-stop`. Its kubeconfig:")
	fmt.Println(filepath.Join(dataDir(dir), "kubeconfig"))
	return nil
}

func launch(dir string) (pid int, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	log, err := os.Create(logPath(dir))
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }()
	child := exec.Command(program, "run", dir)
	child.Stderr = log
	// Without a session of its own it would end with the terminal.
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	output, err := child.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := child.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", program, err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err == nil && line == started+"\n" {
		pid = child.Process.Pid
		return pid, child.Process.Release()
	}
	_ = child.Wait() // it has said why
	said, err := os.ReadFile(logPath(dir))
	return 0, errors.Join(fmt.Errorf("the control plane did not start:\n%s", said), err)
}

// run keeps a control plane until it is told to stop.
func run(dir string) error {
	held, err := acquire(dir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if err := errors.Join(os.RemoveAll(dataDir(dir)), os.Mkdir(dataDir(dir), 0o700)); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cluster, err := controlplane.Start(ctx, controlplane.Options{Dir: dataDir(dir), Kubelet: true, Log: log})
	if err != nil {
		return err
	}
	// The one who started this need not live on to read it.
	signal.Ignore(syscall.SIGPIPE)
	if _, err := io.WriteString(os.Stdout, started+"\n"); err != nil {
		log.Warn("Nobody hears that the control plane has started", "error", err)
	}
	<-ctx.Done()
	return cluster.Stop()
}

// stop ends the process that runs the control plane, and waits for its end.
func stop(dir string) error {
	pid, err := holder(dir)
	if err != nil {
		return err
	}
	if pid == 0 {
		fmt.Println("No control plane runs in " + dir)
		return nil
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	for deadline := time.Now().Add(stopTimeout); ; time.Sleep(50 * time.Millisecond) {
		if other, err := holder(dir); err != nil || other != pid {
			return errors.Join(err, os.RemoveAll(dataDir(dir)))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d did not end within %s; see %s", pid, stopTimeout, logPath(dir))
		}
	}
}
