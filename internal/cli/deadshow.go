package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
)

func (a *app) deadShowCommand() *cobra.Command {
	var (
		f      queueFlags
		output choice
		raw    bool
	)
	cmd := &cobra.Command{
		Use:   "show QUEUE ID",
		Short: "Show all that is known of a dead item",
		Long: `Show all that is known of a dead item: its attempts, its first and its last failure with the end of what the
run printed, and the item, whole. An item that is no text is quoted, as in Go; --raw writes the bytes of the item to
standard output and nothing else, those of items that were claimed together one after the other.

An item that is delayed, claimed or put off is shown as well, with its state.

` + queueHelp + "\n\n" + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard dead show usertask 0019d2f0a8a1c000
  offboard dead show usertask 0019d2f0a8a1c000 -o json | jq .lastFailure
  offboard dead show images 0019d2f0a8a1c000 --raw > photo.jpg`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case raw && output.value != "":
				return usageErrorf("--raw and -o exclude each other")
			case args[1] == "":
				return usageErrorf("the id must not be empty")
			}
			return a.withQueue(cmd.Context(), &f, args[0], func(s source) error {
				return a.deadShow(cmd.Context(), s, args[1], output.value, raw)
			})
		},
	}
	output.allowed = []string{outputJSON, outputYAML}
	choiceVar(cmd, &output, "output", "o", "output format")
	cmd.Flags().BoolVar(&raw, "raw", false, "write the bytes of the item and nothing else")
	f.add(a, cmd)
	cmd.ValidArgsFunction = a.deadIDs(&f, true)
	return cmd
}

func (a *app) deadShow(ctx context.Context, s source, id, output string, raw bool) error {
	record, err := s.one(ctx, id)
	if control.ReasonOf(err) == control.NotFound {
		if _, statsErr := s.Stats(ctx, s.queue); statsErr != nil {
			return err // there is no such queue
		}
		return notFoundError(fmt.Sprintf("%s has no item %q that is dead", s.queue.Name, id))
	}
	if err != nil {
		return err
	}
	shown := item{Record: record}
	switch {
	case raw:
		for _, part := range record.Parts {
			if _, err := a.Out.Write(part); err != nil {
				return err
			}
		}
		return nil
	case output != "":
		return printObject(a.Out, output, shown.object())
	}
	var b strings.Builder
	a.describe(&b, s, shown)
	_, err = io.WriteString(a.Out, b.String())
	return err
}

// describe writes what is known of an item.
func (a *app) describe(b *strings.Builder, s source, i item) {
	line := func(name, value string) {
		_, _ = fmt.Fprintf(b, "%-14s %s\n", name+":", printable(value, 0))
	}
	line("ID", i.ID)
	line("Queue", s.queue.Name)
	line("State", string(i.state()))
	line("Attempts", strconv.Itoa(i.Attempt))
	failures := strconv.Itoa(i.Total)
	if i.Total != i.Failures {
		failures += fmt.Sprintf(", of which %d since it was last retried", i.Failures)
	}
	line("Failures", failures)
	if i.Owner != "" {
		line("Owner", i.Owner)
	}
	line("First seen", a.moment(i.First))
	switch {
	case i.Record.State == queue.Dead:
		line("Died", a.moment(i.At))
	case i.leased():
		line("Lease until", a.moment(i.At))
	case !i.At.IsZero():
		line("Due", a.moment(i.At))
	}
	if i.FirstFailure != nil && i.Total > 1 {
		a.describeFailure(b, "First failure", i.FirstFailure)
	}
	if i.LastFailure != nil {
		a.describeFailure(b, "Last failure", i.LastFailure)
	}
	for n, part := range i.Parts {
		name := "Item"
		if len(i.Parts) > 1 {
			name = fmt.Sprintf("Item %d of %d", n+1, len(i.Parts))
		}
		_, _ = fmt.Fprintf(b, "\n%s (%s):\n", name, plural(len(part), "byte"))
		if isText(part) {
			b.Write(part)
		} else {
			b.WriteString(strconv.Quote(string(part)))
		}
		if n := len(part); n == 0 || part[n-1] != '\n' || !isText(part) {
			b.WriteByte('\n')
		}
	}
}

func (a *app) describeFailure(b *strings.Builder, name string, f *queue.Failure) {
	_, _ = fmt.Fprintf(b, "\n%s:\n", name)
	line := func(name, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(b, "  %-12s %s\n", name+":", printable(value, 0))
		}
	}
	line("Reason", f.Reason)
	line("Message", f.Message)
	if f.ExitCode != nil {
		line("Exit code", strconv.Itoa(*f.ExitCode))
	}
	line("Signal", f.Signal)
	line("Job", f.Job)
	line("At", a.moment(f.At))
	if f.Log == "" {
		return
	}
	b.WriteString("  Log, its end:\n")
	for text := range strings.Lines(f.Log) {
		b.WriteString("    " + printable(strings.TrimSuffix(text, "\n"), 0) + "\n")
	}
}

// moment is a time for people, with how long ago that was or how long it is until then.
func (a *app) moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	now := a.now()
	text := t.In(now.Location()).Format("2006-01-02 15:04:05 -07:00")
	if t.After(now) {
		return text + " (in " + until(t, now) + ")"
	}
	return text + " (" + since(t, now) + " ago)"
}
