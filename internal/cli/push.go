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
)

// A push of many lines goes in batches of about this size, so that memory is bounded and the first Jobs start at once.
const (
	batchItems = 10_000
	batchBytes = 8 << 20
)

// maxItem is the largest item in bytes that fits into a push, with its framing.
const maxItem = control.MaxPushBytes - 64

func (a *app) pushCommand() *cobra.Command {
	var (
		file  string
		lines bool
	)
	cmd := &cobra.Command{
		Use:   "push QUEUE [ITEM...]",
		Short: "Append items to a queue",
		Long: `Append items to a queue through the running "offboard up", in their order.

An ITEM of "-" and --from-file - stand for what standard input holds: one item, byte for byte, or with --lines one
item a line, without the line's end; empty lines are left out. An item may hold any bytes and be as large as 512 MiB.

` + exitHelp,
		Example: `  offboard push usertask '{"user": 1}' '{"user": 2}'
  offboard push usertask --from-file users.jsonl --lines
  jq -c '.users[]' users.json | offboard push usertask - --lines
  offboard push images - < photo.jpg`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(client *control.Client) error {
				p := &pusher{ctx: cmd.Context(), client: client, queue: args[0]}
				return a.push(p, args[1:], file, lines)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&file, "from-file", "", "read an item from this file")
	cmd.Flags().BoolVar(&lines, "lines", false, "with --from-file or -, make each line an item")
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
	case p.queue == "":
		return usageErrorf("the name of the queue must not be empty")
	case lines && !stdin && file == "":
		return usageErrorf("--lines needs --from-file FILE or an item of -")
	}
	err := a.pushAll(p, items, file, lines)
	if err == nil {
		err = p.flush()
	}
	if p.pushed > 0 {
		_, _ = fmt.Fprintf(a.Out, "pushed %s to %s, which holds %d now\n", plural(p.pushed, "item"),
			printable(p.queue, 0), p.length)
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
	client *control.Client
	queue  string

	items  [][]byte
	bytes  int
	pushed int64
	length int64
}

func (p *pusher) add(item []byte) error {
	if len(p.items) >= batchItems || len(p.items) > 0 && p.bytes+len(item) > batchBytes {
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
	result, err := p.client.Push(p.ctx, p.queue, p.items)
	if err != nil {
		return err
	}
	p.pushed += int64(len(p.items))
	p.length = result.Length
	p.items, p.bytes = nil, 0
	return nil
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
