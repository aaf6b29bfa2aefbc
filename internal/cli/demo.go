package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/examples"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/local"
)

const (
	demoQueue   = "usertask"
	demoItems   = 6
	demoTimeout = 5 * time.Minute
)

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show six items become six Jobs",
		Long: `Run the example examples/usertask in a temporary folder: start everything that it needs, push {"user": 1} to
{"user": 6}, print what each run says, and stop when all are done. Nothing is left behind.

` + exitHelp,
		Example: "  offboard demo",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context()) },
	}
}

func (a *app) demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "offboard-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := unpack(dir, examples.UserTask); err != nil {
		return fmt.Errorf("unpack the example: %w", err)
	}
	status := newStatusLine(a.Out)
	if !a.verbose {
		a.log.Set(slog.LevelWarn)
	}
	log := a.liveLogger(status)
	ctx, cancel := context.WithTimeoutCause(ctx, demoTimeout, errors.New("the demo took too long"))
	defer cancel()
	ctx, hurry, release := stopSignals(ctx, log)
	defer release()

	engine, _, err := local.Open(ctx, local.Options{
		DataDir: filepath.Join(dir, "data"), Paths: []string{filepath.Join(dir, "usertask")},
		Grace: time.Second, Version: a.version(), Log: log,
	})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(running, hurry) }()

	d := demo{backend: engine, out: status, followed: map[string]bool{}}
	err = d.run(ctx)
	stop()
	return errors.Join(err, <-ended)
}

// unpack writes the files of a file system into a folder. Scripts are executable, which an embedded file is not.
func unpack(dir string, files fs.FS) error {
	return fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, path)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		data, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o700) //nolint:gosec // scripts must be executable
	})
}

// demo pushes the items and follows the Jobs.
type demo struct {
	backend   control.Backend
	out       *statusLine
	followed  map[string]bool
	following sync.WaitGroup
}

func (d *demo) run(ctx context.Context) error {
	items := make([][]byte, demoItems)
	for i := range items {
		items[i] = fmt.Appendf(nil, `{"user": %d}`, i+1)
		d.say("push %s %s", demoQueue, items[i])
	}
	if _, err := d.backend.Push(ctx, control.Queue{Name: demoQueue}, items); err != nil {
		return err
	}
	info, err := d.wait(ctx)
	d.out.set("")
	if err != nil {
		return err
	}
	d.following.Wait()
	left := int(*info.Queue) + info.Running + info.Pending
	d.say("%d items, %d Jobs succeeded, %d failed, %d left", demoItems, info.Succeeded, info.Failed, left)
	if info.Succeeded != demoItems || info.Failed != 0 || left != 0 {
		return fmt.Errorf("%d Jobs were to succeed, and none to fail or to be left", demoItems)
	}
	return nil
}

// wait returns when as many Jobs have finished as there were items, and the queue is empty.
func (d *demo) wait(ctx context.Context) (control.ScaledJobInfo, error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err := d.follow(ctx); err != nil {
			return control.ScaledJobInfo{}, err
		}
		infos, err := d.backend.ScaledJobs(ctx, "")
		if err != nil {
			return control.ScaledJobInfo{}, err
		}
		d.out.set(summary(infos))
		info := infos[0]
		empty := info.Queue != nil && *info.Queue == 0
		if empty && info.Succeeded+info.Failed >= demoItems && info.Running+info.Pending == 0 {
			return info, nil
		}
		select {
		case <-ctx.Done():
			return info, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// follow prints the output of Jobs that are new.
func (d *demo) follow(ctx context.Context) error {
	jobs, err := d.backend.Jobs(ctx, "", "")
	if err != nil {
		return err
	}
	for _, info := range jobs {
		name := info.Job.Name
		if d.followed[name] || len(info.Pods) == 0 {
			continue
		}
		logs, err := d.backend.Logs(ctx, info.Job.Namespace, name, control.LogOptions{Follow: true})
		if control.ReasonOf(err) == control.NotFound {
			continue // it has not started yet
		}
		if err != nil {
			return err
		}
		d.followed[name] = true
		d.following.Go(func() { d.print(name, logs) })
	}
	return nil
}

func (d *demo) print(job string, logs io.ReadCloser) {
	defer logs.Close()
	for lines := bufio.NewScanner(logs); lines.Scan(); {
		d.say("%s | %s", job, safeText(lines.Text()))
	}
}

func (d *demo) say(format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, format+"\n", args...)
}
