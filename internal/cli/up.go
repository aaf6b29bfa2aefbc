package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/local"
)

const (
	defaultGrace   = 30 * time.Second
	statusInterval = 200 * time.Millisecond
	// waitingInterval is how often a stop that takes long says what it waits for.
	waitingInterval = 5 * time.Second
	// namedJobs is how many Jobs that message names.
	namedJobs = 3
	// namedScaledJobs is how many ScaledJobs the status line names.
	namedScaledJobs = 2
)

func (a *app) upCommand() *cobra.Command {
	var files []string
	var options local.Options
	cmd := &cobra.Command{
		Use:   "up -f PATH...",
		Short: "Run the Jobs of ScaledJobs on this machine until stopped",
		Long: `Read the manifests, watch their queues, and run a Job for each item on this machine, as processes, until
stopped.

A PATH is a file or a folder, of which every .yaml, .yml and .json file is read. The files are watched: a change is
in force at once, and one with errors leaves the last good manifest in force. A container needs a command; it works in
the folder of its manifest unless it names a workingDir.

When a redis trigger has no address, a Redis is started: redis-server or valkey-server if one is installed, with its
data in the data folder, else one in memory. It listens on 127.0.0.1:6379 or the next free port, and every container
gets REDIS_HOST and REDIS_PORT of it.

Ctrl-C (or SIGTERM) starts no more Jobs and lets those that run end within --grace; a second one ends them at once.
Jobs that did not end are taken up again by the next "offboard up" with that data folder.

` + exitHelp,
		Example: `  offboard up -f examples/usertask/
  offboard up -f one.yaml -f more/ --data-dir /var/lib/offboard --grace 10m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			options.Paths = append(files, args...)
			if len(options.Paths) == 0 {
				return usageErrorf("no manifests were given: use -f with a file or a folder, for example -f examples/usertask/")
			}
			if options.Grace < 0 {
				return usageErrorf("--grace is %v, must not be negative", options.Grace)
			}
			if err := options.Limits.Check(); err != nil {
				return usageErrorf("%w", err)
			}
			return a.up(cmd.Context(), options)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "manifest file or folder; may be given several times")
	cmd.Flags().DurationVar(&options.Grace, "grace", defaultGrace, "how long Jobs may go on after Ctrl-C")
	addLimits(cmd.Flags(), &options.Limits)
	authFilesVar(cmd.Flags(), &options.AuthFiles)
	cmd.Flags().BoolVar(&options.MemoryRedis, "memory-redis", false,
		"serve the queue from memory even if redis-server is installed")
	return cmd
}

// addLimits adds the flags of the limits that hold on one machine and on a cluster.
func addLimits(f *pflag.FlagSet, l *limits.Limits) {
	f.IntVar(&l.Jobs, "max-jobs", 0, "Jobs that may be alive over all ScaledJobs (0: no limit)")
	f.Float64Var(&l.JobsPerSecond, "max-jobs-per-second", 0,
		"Jobs that may be created in a second over all ScaledJobs (0: no limit)")
}

func (a *app) up(ctx context.Context, options local.Options) error {
	var err error
	if options.DataDir, err = a.dataDir(); err != nil {
		return err
	}
	status := newStatusLine(a.Err)
	options.Version, options.Log = a.version(), a.liveLogger(status)

	ctx, hurry, release := stopSignals(ctx, options.Log)
	defer release()
	engine, err := a.open(ctx, options, status)
	if err != nil {
		return err
	}
	info, err := engine.Info(ctx)
	if err != nil {
		return err
	}
	attributes := []any{"data", info.DataDir, "manifests", strings.Join(info.Manifests, ", ")}
	if info.Redis != "" {
		attributes = append(attributes, "redis", info.Redis)
	}
	options.Log.Info("offboard is up; stop it with Ctrl-C", attributes...)

	showing, stopShowing := context.WithCancel(context.Background())
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		showStatus(showing, ctx, engine, status, options.Log)
	}()
	err = engine.Run(ctx, hurry)
	stopShowing()
	<-shown
	if err == nil {
		options.Log.Info("offboard is down")
	}
	return err
}

// open makes the engine and prints what is wrong with the manifests.
func (a *app) open(ctx context.Context, options local.Options, out io.Writer) (*local.Engine, error) {
	engine, problems, err := local.Open(ctx, options)
	if printErr := problems.Print(out); printErr != nil && err == nil {
		err = printErr
	}
	switch {
	case errors.Is(err, local.ErrManifests):
		return nil, usageErrorf("nothing was started: %w", err)
	case errors.Is(err, local.ErrInUse):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("start: %w", err)
	}
	return engine, nil
}

// liveLogger logs for people, above the status line.
func (a *app) liveLogger(status *statusLine) *slog.Logger {
	if a.verbose {
		a.log.Set(slog.LevelDebug)
	}
	return slog.New(tint.NewTextHandler(status, &tint.Options{
		Level: a.log, TimeFormat: time.TimeOnly, NoColor: !a.colours(a.Err),
	}))
}

// stopSignals returns a context that the first signal to stop ends, and one that the second ends.
func stopSignals(parent context.Context, log *slog.Logger) (ctx, hurry context.Context, release func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, stop := context.WithCancel(parent)
	hurry, stopNow := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		for received := 0; ; received++ {
			select {
			case <-done:
				return
			case <-signals:
			}
			if received == 0 {
				log.Info("Stopping: no more Jobs are started. Once more ends those that run at once")
				stop()
			} else {
				stopNow()
			}
		}
	}()
	return ctx, hurry, func() {
		signal.Stop(signals)
		close(done)
		stop()
		stopNow()
	}
}

// showStatus keeps the status line up to date until ctx ends, and tells what is waited for once working has ended.
func showStatus(ctx, working context.Context, engine *local.Engine, status *statusLine, log *slog.Logger) {
	if status.width == nil {
		// There is nobody to show a line to, and what is idle should not wake up.
		select {
		case <-ctx.Done():
			return
		case <-working.Done():
		}
	}
	ticker := time.NewTicker(statusInterval)
	defer ticker.Stop()
	defer status.set("")
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if working.Err() != nil {
			if active := engine.Active(); len(active) > 0 && time.Since(told) > waitingInterval {
				told = time.Now()
				log.Info("Waiting for Jobs to end", "jobs", nameSome(active))
			}
		}
		if infos, err := engine.ScaledJobs(ctx, ""); err == nil {
			status.set(summary(infos))
		}
	}
}

// nameSome names the first few.
func nameSome(names []string) string {
	if len(names) > namedJobs {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namedJobs], ", "), len(names)-namedJobs)
	}
	return strings.Join(names, ", ")
}

// summary tells in one line how the ScaledJobs fare: each of a few, or all of many together.
func summary(infos []control.ScaledJobInfo) string {
	if len(infos) > namedScaledJobs {
		return total(infos)
	}
	parts := make([]string, len(infos))
	for i, info := range infos {
		queue := "?"
		if info.Queue != nil {
			queue = fmt.Sprintf("%.0f", *info.Queue)
		}
		parts[i] = fmt.Sprintf("%s: %s waiting, %d running, %d succeeded, %d failed",
			info.Object.Name, queue, info.Running+info.Pending, info.Succeeded, info.Failed)
	}
	return strings.Join(parts, "   ")
}

// total sums up the ScaledJobs. A queue whose length is not known is not counted.
func total(infos []control.ScaledJobInfo) string {
	var queue float64
	var sum control.ScaledJobInfo
	for _, info := range infos {
		if info.Queue != nil {
			queue += *info.Queue
		}
		sum.Running += info.Running + info.Pending
		sum.Succeeded += info.Succeeded
		sum.Failed += info.Failed
	}
	return fmt.Sprintf("%d ScaledJobs: %.0f waiting, %d running, %d succeeded, %d failed",
		len(infos), queue, sum.Running, sum.Succeeded, sum.Failed)
}
