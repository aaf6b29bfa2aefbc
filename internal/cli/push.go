package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/kube/backend"
)

// A push of many lines goes in batches of about this size, so that memory is bounded and the first Jobs start at once.
const (
	batchItems = 10_000
	batchBytes = 8 << 20
	// Items for later go in smaller batches, since the server does nothing else while it takes one.
	laterItems = 1_000
	laterBytes = 1 << 20
)

// maxItem is the largest item in bytes that fits into a push, with its framing.
const maxItem = control.MaxPushBytes - 64

func (a *app) pushCommand() *cobra.Command {
	var (
		file  string
		lines bool
		queue control.Queue
		w     where
		need  backend.Need
		later laterFlags
	)
	cmd := &cobra.Command{
		Use:   "push QUEUE [ITEM...]",
		Short: "Append items to a queue",
		Long: `Append items to a queue, in their order: to that of a ScaledJob's trigger, which the running "offboard up" or a
cluster knows.

An ITEM of "-" and --from-file - stand for what standard input holds: one item, byte for byte, or with --lines one
item a line, without the line's end; empty lines are left out. An item may hold any bytes and be as large as 512 MiB.

On a cluster, the server and its password are found as the operator finds them, so that takes the right to read the
ScaledJob and the Secrets that it refers to. A server whose name only the cluster knows, that of a Service, is reached
through a port-forward to one of its Pods. Items go to a queue of the namespace; without -n and on this machine, to one
of any namespace. --scaledjob tells ScaledJobs apart that read queues of the same name on different servers.

--in and --at keep items out of the queue until their time has come: after a while such as 90s or 1h30m, or at a TIME
such as 2006-01-02T15:04:05Z (RFC 3339), "2006-01-02 15:04" (local time) or 15:04 (the next time that a clock here
shows that). A time that has passed means at once. An operator and "offboard up" are told of that time and put them into
the queue then; with Redis before 6 up to a pollingInterval later. Where there are only runners, the next that starts
does.

--unique KEY --for 1h refuses the push (exit code 5) when there was another with that key less than an hour ago,
whatever has become of its item, and says which item that was.

With --in, --at and --unique the items have ids from the beginning. They are printed after the first line, one a line,
and "offboard queue" shows them.

` + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard push usertask '{"user": 1}' '{"user": 2}'
  offboard push usertask --from-file users.jsonl --lines
  jq -c '.users[]' users.json | offboard push usertask - --lines
  offboard push usertask '{"user": 1}' --in 10m
  offboard push usertask '{"report": "daily"}' --at 18:00 --unique daily-report --for 20h
  offboard push images - < photo.jpg`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			queue.Name, queue.Namespace = args[0], w.namespace
			options, err := later.options(cmd, a.now())
			if err != nil {
				return err
			}
			return a.withTarget(cmd.Context(), &w, need, func(t *target) error {
				if t.cluster != "" {
					queue.Namespace = w.namespace
				}
				return a.push(&pusher{ctx: cmd.Context(), target: t, queue: queue, later: options}, args[1:], file, lines)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	a.whereVar(cmd, &w)
	cmd.Flags().StringVarP(&queue.ScaledJob, "scaledjob", "s", "", "push to the queue of this ScaledJob")
	complete(cmd, "scaledjob", a.completeFrom(&w, scaledJobNames))
	clusterNamespaceVar(cmd, &need)
	cmd.Flags().StringVar(&file, "from-file", "", "read an item from this file")
	cmd.Flags().BoolVar(&lines, "lines", false, "with --from-file or -, make each line an item")
	later.add(cmd)
	return cmd
}

func (a *app) push(p *pusher, items []string, file string, lines bool) error {
	stdin := file == "-"
	for _, item := range items {
		if item == "-" && stdin {
			return usageErrorf("standard input can be read once only: give one of - and --from-file -")
		}
		stdin = stdin || item == "-"
	}
	switch {
	case len(items) == 0 && file == "":
		return usageErrorf("there is no item to push: give one as an argument, with --from-file FILE, or as - on " +
			"standard input")
	case p.queue.Name == "":
		return usageErrorf("the name of the queue must not be empty")
	case lines && !stdin && file == "":
		return usageErrorf("--lines needs --from-file FILE or an item of -")
	}
	err := a.pushAll(p, items, file, lines)
	if err == nil {
		err = p.flush()
	}
	if p.pushed > 0 {
		_, _ = fmt.Fprintf(a.Out, "pushed %s to %s%s, %s\n", plural(p.pushed, "item"),
			printable(p.queue.Name, 0), p.target.in(), p.outcome())
		for _, id := range p.ids {
			_, _ = fmt.Fprintln(a.Out, printable(id, 0))
		}
	}
	if err == nil && p.pushed == 0 {
		_, _ = fmt.Fprintln(a.Out, "pushed no item: there was no line that is not empty")
	}
	return err
}

func (a *app) pushAll(p *pusher, items []string, file string, lines bool) error {
	for _, item := range items {
		if item != "-" {
			if err := p.add([]byte(item)); err != nil {
				return err
			}
		} else if err := p.addFrom("standard input", a.In, lines); err != nil {
			return err
		}
	}
	switch file {
	case "":
		return nil
	case "-":
		return p.addFrom("standard input", a.In, lines)
	}
	opened, err := os.Open(file)
	if err != nil {
		return usageErrorf("read the items: %w", err)
	}
	defer func() { _ = opened.Close() }()
	return p.addFrom(file, opened, lines)
}

// pusher collects items and pushes them in batches.
type pusher struct {
	ctx    context.Context //nolint:containedctx // the pusher lives as long as the command
	target *target
	queue  control.Queue
	// later says how items are pushed that have an id from the beginning; nil for others.
	later *later

	items  [][]byte
	bytes  int
	pushed int64
	length int64
	ids    []string
}

// outcome says where the items are.
func (p *pusher) outcome() string {
	if p.later != nil && p.later.due != "" {
		return "due " + p.later.due
	}
	return fmt.Sprintf("which holds %d now", p.length)
}

func (p *pusher) add(item []byte) error {
	mostItems, mostBytes := batchItems, batchBytes
	if p.later != nil {
		mostItems, mostBytes = laterItems, laterBytes
		if p.later.Unique != "" && len(p.items) > 0 {
			return usageErrorf("a unique key is for one item, and there are more")
		}
	}
	if len(p.items) >= mostItems || len(p.items) > 0 && p.bytes+len(item) > mostBytes {
		if err := p.flush(); err != nil {
			return err
		}
	}
	p.items = append(p.items, item)
	p.bytes += len(item)
	return nil
}

func (p *pusher) flush() error {
	if len(p.items) == 0 {
		return nil
	}
	if err := p.send(); err != nil {
		return err
	}
	p.pushed += int64(len(p.items))
	p.items, p.bytes = nil, 0
	return nil
}

func (p *pusher) send() error {
	if p.later == nil {
		result, err := p.target.Push(p.ctx, p.queue, p.items)
		p.length = result.Length
		return err
	}
	pushed, err := p.target.PushWith(p.ctx, p.queue, p.later.PushOptions, p.items)
	if err == nil && pushed.HeldBy != "" {
		return refusedError{fmt.Errorf("nothing was pushed: item %s of %s holds the unique key %q",
			pushed.HeldBy, p.queue.Name, p.later.Unique)}
	}
	p.length, p.ids = pushed.Length, append(p.ids, pushed.IDs...)
	return err
}

// addFrom adds what a stream holds, as one item or one a line.
func (p *pusher) addFrom(name string, r io.Reader, lines bool) error {
	if !lines {
		item, err := io.ReadAll(io.LimitReader(r, maxItem+1))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if len(item) > maxItem {
			return usageErrorf("%s holds more than the %d bytes that an item may have", name, maxItem)
		}
		return p.add(item)
	}
	reader := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		line, err := readLine(reader)
		if errors.Is(err, errLongLine) {
			return usageErrorf("%s, line %d: it has more than the %d bytes that an item may have", name, number, maxItem)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if item := bytes.TrimSuffix(line, []byte("\n")); len(item) > 0 {
			if err := p.add(item); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

var errLongLine = errors.New("the line is too long")

// readLine reads up to and including the end of a line, which the last one may lack: then it comes with io.EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		line = append(line, piece...)
		if len(line) > maxItem+1 {
			return nil, errLongLine
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
