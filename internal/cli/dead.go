package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
)

func (a *app) deadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "See, retry and drop items that were given up",
		Long: `See, retry and drop the dead items of a queue: those that were given up after their last attempt, or because
their command has said that it never will succeed (exit code 65). They are kept with the reason until a person decides.

` + exitHelp,
		Example: `  offboard dead ls usertask
  offboard dead show usertask 0019d2f0a8a1c000
  offboard dead retry usertask --all`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, sub := range cmd.Commands() {
				names = append(names, sub.Name())
			}
			return usageErrorf("unknown command %q%s; see: %s --help", args[0], didYouMean(args[0], names), cmd.CommandPath())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.deadListCommand(), a.deadShowCommand(), a.deadRetryCommand(), a.deadDropCommand())
	return cmd
}

func (a *app) deadListCommand() *cobra.Command {
	var (
		f      queueFlags
		filter deadFilter
		output choice
	)
	cmd := &cobra.Command{
		Use:   "ls QUEUE",
		Short: "List dead items",
		Long: `List the dead items of a queue, those that died first ahead.

ATTEMPTS is how often an item was claimed, FAILURES how many of these attempts failed. REASON is why the last one did,
EXIT its exit code, or the signal that ended it. DIED is how long ago the item was given up.

` + filterHelp + "\n\n" + queueHelp + "\n\n" + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard dead ls usertask
  offboard dead ls usertask --reason DeadlineExceeded -o wide
  offboard dead ls usertask --older-than 24h -o name | xargs offboard dead drop usertask
  offboard dead ls usertask -o json | jq '.items[].lastFailure.message'`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withQueue(cmd.Context(), &f, args[0], func(s source) error {
				return a.deadList(cmd.Context(), s, filter, output.value)
			})
		},
	}
	output.allowed = []string{outputJSON, outputYAML, outputWide, outputName}
	choiceVar(cmd, &output, "output", "o", "output format")
	filter.add(cmd)
	f.add(a, cmd)
	cmd.ValidArgsFunction = firstOnly(a.completeFrom(&f.where, queueNames))
	return cmd
}

func (a *app) deadList(ctx context.Context, s source, filter deadFilter, output string) error {
	items, err := s.dead(ctx, filter, a.now())
	if err != nil {
		return err
	}
	switch output {
	case outputJSON, outputYAML:
		return printObject(a.Out, output, struct {
			Queue string       `json:"queue"`
			Items []itemObject `json:"items"`
		}{s.queue.Name, objectsOf(items)})
	case outputName:
		return a.printIDs(items)
	}
	if len(items) == 0 {
		_, _ = fmt.Fprintf(a.Err, "No dead items found in %s%s.\n", s.name(), s.in())
		return nil
	}
	return a.printDead(items, output == outputWide)
}

func (a *app) printDead(items []item, wide bool) error {
	header := []string{"ID", "ATTEMPTS", "FAILURES", "REASON", "EXIT", "DIED", "ITEM"}
	limit := itemWidth
	if wide {
		header = append(header, "SIZE", "JOB", "MESSAGE")
		limit = itemWidthWide
	}
	list := table{header: header, coloured: a.colours(a.Out)}
	rows := make([]row, len(items))
	for i, item := range items {
		last := item.LastFailure
		if last == nil {
			last = &queue.Failure{}
		}
		cells := []cell{
			plain(printable(item.ID, 0)), number(item.Attempt), number(item.Total), plain(orDash(printable(last.Reason, 0))),
			plain(orDash(exitText(last))), plain(since(item.At, a.now())), plain(orDash(partsText(item.Parts, limit))),
		}
		if wide {
			cells = append(cells, number(item.Size), plain(orDash(printable(last.Job, 0))),
				plain(orDash(printable(last.Message, 0))))
		}
		rows[i] = row{key: item.ID, cells: cells}
	}
	return list.print(a.Out, rows)
}

// exitText is the exit code or the signal of a failure; empty when neither is known.
func exitText(f *queue.Failure) string {
	switch {
	case f.Signal != "":
		return printable(f.Signal, 0)
	case f.ExitCode != nil:
		return strconv.Itoa(*f.ExitCode)
	}
	return ""
}

// deadChange is what a command does with dead items.
type deadChange struct {
	operation control.Operation
	// done and todo say what is done with items: "retried", "retry".
	done, todo string
}

func (a *app) deadRetryCommand() *cobra.Command {
	return a.deadChangeCommand(deadChange{control.RetryDead, "retried", "retry"}, &cobra.Command{
		Use:   "retry QUEUE [ID...]",
		Short: "Put dead items back to the head of their queue",
		Long: `Put dead items back to the head of their queue, in the order of the ids, or those that died first ahead. They
have all their attempts before them again, and keep their id and the history of their failures.

` + choosingHelp,
		Example: `  offboard dead retry usertask 0019d2f0a8a1c000 0019d2f0a8a1c001
  offboard dead retry usertask --reason DeadlineExceeded --dry-run
  offboard dead retry usertask --all -n shop --context production`,
	})
}

func (a *app) deadDropCommand() *cobra.Command {
	return a.deadChangeCommand(deadChange{control.DropDead, "dropped", "drop"}, &cobra.Command{
		Use:   "drop QUEUE [ID...]",
		Short: "Remove dead items for good",
		Long: `Remove dead items for good, with all that is known of them.

` + choosingHelp,
		Example: `  offboard dead drop usertask 0019d2f0a8a1c000
  offboard dead drop usertask --older-than 720h
  offboard dead drop usertask --match '"user": 7}' --dry-run`,
	})
}

// choosingHelp documents how items are chosen.
const choosingHelp = `The items are named by their ids, or chosen by filters, or --all. --dry-run shows which ones
these are and does nothing. An ID that is not dead, or not any more, is named and leads to exit code 3; the others are
done all the same.

` + filterHelp + "\n\n" + queueHelp + "\n\n" + whereHelp + "\n\n" + exitHelp

func (a *app) deadChangeCommand(c deadChange, cmd *cobra.Command) *cobra.Command {
	var (
		f      queueFlags
		filter deadFilter
		all    bool
		dryRun bool
	)
	cmd.Args = usageArgs(cobra.MinimumNArgs(1))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ids := args[1:]
		switch {
		case len(ids) == 0 && filter.empty() && !all:
			return usageErrorf("say which items to %s: give their ids, a filter (--reason, --older-than, --match), or --all",
				c.todo)
		case len(ids) > 0 && (all || !filter.empty()):
			return usageErrorf("ids exclude --all and filters")
		case all && !filter.empty():
			return usageErrorf("--all excludes filters")
		case slices.Contains(ids, ""):
			return usageErrorf("an id must not be empty")
		}
		return a.withQueue(cmd.Context(), &f, args[0], func(s source) error {
			if len(ids) > 0 {
				return a.changeDead(cmd.Context(), s, c, ids, dryRun)
			}
			return a.changeChosen(cmd.Context(), s, c, filter, dryRun)
		})
	}
	cmd.Flags().BoolVar(&all, "all", false, c.todo+" all dead items")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the items and do nothing")
	filter.add(cmd)
	f.add(a, cmd)
	cmd.ValidArgsFunction = a.deadIDs(&f, false)
	return cmd
}

// changeDead changes the items of these ids.
func (a *app) changeDead(ctx context.Context, s source, c deadChange, ids []string, dryRun bool) error {
	var wanted []string // each once
	for _, id := range ids {
		if !slices.Contains(wanted, id) {
			wanted = append(wanted, id)
		}
	}
	var done []string
	var err error
	if dryRun {
		done, err = a.previewDead(ctx, s, c, wanted)
	} else {
		done, err = a.apply(ctx, s, c, wanted)
	}
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(wanted, func(id string) bool { return slices.Contains(done, id) })
	if len(left) > 0 {
		return notFoundError(fmt.Sprintf("not among the dead items of %s: %s", s.queue.Name, strings.Join(left, ", ")))
	}
	return nil
}

// previewDead prints which of the items would be changed, and returns their ids.
func (a *app) previewDead(ctx context.Context, s source, c deadChange, ids []string) ([]string, error) {
	var items []item
	var found []string
	for _, id := range ids {
		record, err := s.one(ctx, id)
		switch {
		case control.ReasonOf(err) == control.NotFound:
		case err != nil:
			return nil, err
		case record.State == queue.Dead:
			items, found = append(items, item{Record: record}), append(found, id)
		}
	}
	return found, a.wouldChange(s, c, items)
}

// changeChosen changes the items that the filter lets through.
func (a *app) changeChosen(ctx context.Context, s source, c deadChange, filter deadFilter, dryRun bool) error {
	items, err := s.dead(ctx, filter, a.now())
	if err != nil {
		return err
	}
	if dryRun {
		return a.wouldChange(s, c, items)
	}
	ids := make([]string, len(items))
	for i, item := range items {
		ids[i] = item.ID
	}
	done, err := a.apply(ctx, s, c, ids)
	if left := len(ids) - len(done); left > 0 && err == nil {
		_, _ = fmt.Fprintf(a.Out, "%s had been retried or dropped in the meantime\n", plural(left, "item"))
	}
	return err
}

func (a *app) wouldChange(s source, c deadChange, items []item) error {
	if len(items) > 0 {
		if err := a.printDead(items, false); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(a.Out)
	}
	_, _ = fmt.Fprintf(a.Out, "%s of %s%s would be %s\n", plural(len(items), "dead item"), s.name(), s.in(), c.done)
	return nil
}

// apply changes the items and says how many that were.
func (a *app) apply(ctx context.Context, s source, c deadChange, ids []string) ([]string, error) {
	refs := make([]control.ItemRef, len(ids))
	for i, id := range ids {
		refs[i].ID = id
	}
	done, err := s.change(ctx, c.operation, refs)
	if err == nil || len(done) > 0 {
		_, _ = fmt.Fprintf(a.Out, "%s %s of %s%s\n", c.done, plural(len(done), "dead item"), s.name(), s.in())
	}
	return done, err
}

// filterHelp documents deadFilter.
const filterHelp = `Filters, of which all that are given must hold:
  --reason TEXT        the reason of the last failure or its message holds the text, in capitals or not
  --older-than AGE     it died as long ago as that, for example 1h or 90m
  --match SUBSTRING    the item holds these bytes`

// deadFilter chooses dead items.
type deadFilter struct {
	reason    string
	olderThan time.Duration
	match     string
}

func (f *deadFilter) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.reason, "reason", "", "only items whose last failure has this in its reason or message")
	cmd.Flags().DurationVar(&f.olderThan, "older-than", 0, "only items that died as long ago as that")
	cmd.Flags().StringVar(&f.match, "match", "", "only items that hold these bytes")
	for _, flag := range []string{"reason", "older-than", "match"} {
		complete(cmd, flag, cobra.NoFileCompletions)
	}
}

func (f *deadFilter) empty() bool { return *f == deadFilter{} }

// dead returns the dead items that the filter lets through, those that died first ahead.
func (s source) dead(ctx context.Context, f deadFilter, now time.Time) ([]item, error) {
	records, err := s.records(ctx, queue.Dead, 0)
	if err != nil {
		return nil, err
	}
	var items []item
	for _, record := range records {
		if !f.fits(record, now) {
			continue
		}
		if fits, err := s.holds(ctx, record, f.match); err != nil {
			return nil, err
		} else if fits {
			items = append(items, item{Record: record})
		}
	}
	return items, nil
}

// fits tells whether the record fits all but the bytes of the item, of which a list shows the beginning only.
func (f *deadFilter) fits(record queue.Record, now time.Time) bool {
	if f.reason != "" {
		last := record.LastFailure
		if last == nil || !strings.Contains(strings.ToLower(last.Reason+"\n"+last.Message), strings.ToLower(f.reason)) {
			return false
		}
	}
	return f.olderThan == 0 || now.Sub(record.At) >= f.olderThan
}

// holds tells whether the item holds the text. It is read whole when what is listed of it does not tell.
func (s source) holds(ctx context.Context, record queue.Record, text string) (bool, error) {
	contains := func(parts [][]byte) bool {
		return slices.ContainsFunc(parts, func(part []byte) bool { return strings.Contains(string(part), text) })
	}
	if contains(record.Parts) {
		return true, nil
	}
	size := int64(0)
	for _, part := range record.Parts {
		size += int64(len(part))
	}
	if size == record.Size {
		return false, nil
	}
	whole, err := s.one(ctx, record.ID)
	if control.ReasonOf(err) == control.NotFound {
		return false, nil // somebody has dropped it
	}
	return err == nil && contains(whole.Parts), err
}

// one returns the record of one item, whole.
func (s source) one(ctx context.Context, id string) (queue.Record, error) {
	records, err := s.Items(ctx, s.queue, control.Selection{ID: id})
	if err == nil && len(records) != 1 {
		err = errors.New("the answer about one item is not of one")
	}
	if err != nil {
		return queue.Record{}, err
	}
	return records[0], nil
}
