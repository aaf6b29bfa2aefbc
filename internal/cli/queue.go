package cli

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/offboard-dev/offboard/internal/queue"
)

const (
	defaultQueueLimit = 20
	unknownText       = "unknown"
)

// shownStates are the states whose items can be shown, in the order in which they are.
func shownStates() []queue.State {
	return []queue.State{queue.Running, queue.Claimed, queue.Retry, queue.Ready, queue.Delayed, queue.Dead}
}

func (a *app) queueCommand() *cobra.Command {
	var (
		f      queueFlags
		output choice
		state  choice
		limit  int
	)
	cmd := &cobra.Command{
		Use:   "queue QUEUE",
		Short: "Show a queue: its items by state, how old, how many a second",
		Long: `Show how many items of a queue are in which state, and the items themselves.

An item is
  ready    in the queue, for whoever takes it next
  delayed  pushed for a later time
  claimed  taken off the queue for a Job or a runner that does not run yet
  running  claimed, and its Job has a Pod that runs, or a runner holds it by a lease
  retry    put off after a run that failed, until it is DUE
  dead     given up, and kept for a person to decide: see "offboard dead"
DONE, BURIED and DROPPED count what has ended since the records of the queue began; of items that a runner pops for
itself nothing is known. OLDEST is about how long the item at the head has been ready. IN and OUT are how many items a
second have arrived and were done, averaged over the last minute. What is not known is "unknown".

HOLDER is the Job that works on an item, else the ScaledJob or the runner that has claimed it. AGE is the time since the
item was first seen, which is not known of one that was never claimed. ITEM is cut when it is long; what does not print
is escaped. At most --limit items of each state are shown, the oldest first.

` + queueHelp + "\n\n" + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard queue usertask
  offboard queue usertask --state retry --limit 100
  offboard queue usertask -n shop --context production -o wide
  offboard queue usertask -o json | jq '.summary.ready'`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usageErrorf("--limit is %d, must not be negative", limit)
			}
			return a.withQueue(cmd.Context(), &f, args[0], func(s source) error {
				return a.queue(cmd.Context(), s, queue.State(state.value), limit, output.value)
			})
		},
	}
	output.allowed = []string{outputJSON, outputYAML, outputWide, outputName}
	choiceVar(cmd, &output, "output", "o", "output format")
	for _, s := range shownStates() {
		state.allowed = append(state.allowed, string(s))
	}
	choiceVar(cmd, &state, "state", "", "show only items in this state")
	cmd.Flags().IntVar(&limit, "limit", defaultQueueLimit, "show at most so many items of each state")
	f.add(a, cmd)
	cmd.ValidArgsFunction = firstOnly(a.completeFrom(&f.where, queueNames))
	return cmd
}

// counts are the items of a queue by state. Claimed and Running exclude each other.
type counts struct {
	queue.Stats
	running int64
}

func (a *app) queue(ctx context.Context, s source, state queue.State, limit int, output string) error {
	stats, err := s.Stats(ctx, s.queue)
	if err != nil {
		return err
	}
	var claims []item
	if stats.Claimed > 0 {
		if claims, err = s.claims(ctx); err != nil {
			return err
		}
	}
	c := counts{Stats: stats}
	for _, claim := range claims {
		if claim.state() == queue.Running {
			c.running++
		}
	}
	c.Claimed = max(0, int64(len(claims))-c.running)
	items, err := s.shown(ctx, state, claims, limit)
	if err != nil {
		return err
	}
	switch output {
	case outputJSON, outputYAML:
		return printObject(a.Out, output, queueObjectOf(s.queue.Name, c, items))
	case outputName:
		return a.printIDs(items)
	}
	summary := table{header: countsHeader(), coloured: a.colours(a.Out)}
	if err := summary.print(a.Out, []row{countsRow(c)}); err != nil || len(items) == 0 {
		return err
	}
	_, _ = fmt.Fprintln(a.Out)
	wide := output == outputWide
	list := table{header: itemHeader(wide), coloured: a.colours(a.Out)}
	rows := make([]row, len(items))
	for i, item := range items {
		rows[i] = itemRow(item, wide, a.now())
	}
	return list.print(a.Out, rows)
}

// shown returns the items to show, in the order of shownStates.
func (s source) shown(ctx context.Context, state queue.State, claims []item, limit int) ([]item, error) {
	var items []item
	for _, each := range shownStates() {
		if state != "" && state != each || limit == 0 {
			continue
		}
		if each == queue.Running || each == queue.Claimed {
			of := slices.DeleteFunc(slices.Clone(claims), func(i item) bool { return i.state() != each })
			items = append(items, of[:min(limit, len(of))]...)
			continue
		}
		records, err := s.records(ctx, each, limit)
		if err != nil {
			return nil, err
		}
		for _, record := range records {
			items = append(items, item{Record: record})
		}
	}
	return items, nil
}

// printIDs prints the ids of those items that have one.
func (a *app) printIDs(items []item) error {
	for _, item := range items {
		if item.ID == "" {
			continue
		}
		if _, err := fmt.Fprintln(a.Out, printable(item.ID, 0)); err != nil {
			return err
		}
	}
	return nil
}

func countsHeader() []string {
	return []string{
		"READY", "DELAYED", "CLAIMED", "RUNNING", "RETRY", "DEAD", "DONE", "BURIED", "DROPPED", "OLDEST", "IN", "OUT",
	}
}

func countsRow(c counts) row {
	dead := cell{text: strconv.FormatInt(c.Dead, 10)}
	if c.Dead > 0 {
		dead.colour = []color.Attribute{color.FgRed}
	}
	return row{cells: []cell{
		number(c.Ready), number(c.Delayed), number(c.Claimed), number(c.running), number(c.Retry), dead,
		number(c.Done), number(c.Buried), number(c.Dropped), plain(oldestText(c.Stats)),
		plain(rateText(c.In, c.Over)), plain(rateText(c.Out, c.Over)),
	}}
}

func oldestText(s queue.Stats) string {
	switch {
	case s.Ready == 0:
		return "-"
	case s.Oldest < 0:
		return unknownText
	}
	return duration.HumanDuration(s.Oldest)
}

func rateText(rate float64, over time.Duration) string {
	switch {
	case over == 0:
		return unknownText
	case rate > 0 && rate < 0.01:
		return "<0.01/s"
	}
	return strconv.FormatFloat(math.Round(rate*100)/100, 'f', -1, 64) + "/s"
}

func itemHeader(wide bool) []string {
	header := []string{"ID", "STATE", "ATTEMPT", "HOLDER", "AGE", "DUE", "ITEM"}
	if wide {
		header = append(header, "SIZE", "FAILURES", "OWNER", "REASON")
	}
	return header
}

func itemRow(i item, wide bool, now time.Time) row {
	limit := itemWidth
	if wide {
		limit = itemWidthWide
	}
	due := "-"
	if i.Record.State == queue.Delayed || i.Record.State == queue.Retry {
		due = until(i.At, now)
	}
	cells := []cell{
		plain(orDash(printable(i.ID, 0))), {string(i.state()), itemColour(i.state())}, number(i.Attempt),
		plain(orDash(printable(i.holder(), 0))), plain(since(i.First, now)), plain(due),
		plain(orDash(partsText(i.Parts, limit))),
	}
	if wide {
		reason := ""
		if i.LastFailure != nil {
			reason = i.LastFailure.Reason
		}
		cells = append(cells, number(i.Size), number(i.Failures), plain(orDash(printable(i.Owner, 0))),
			plain(orDash(printable(reason, 0))))
	}
	return row{key: i.ID, cells: cells}
}

func itemColour(state queue.State) []color.Attribute {
	switch state {
	case queue.Running:
		return []color.Attribute{color.FgCyan}
	case queue.Retry:
		return []color.Attribute{color.FgYellow}
	case queue.Dead:
		return []color.Attribute{color.FgRed}
	case queue.Ready, queue.Delayed, queue.Claimed, queue.Done:
	}
	return nil
}

// queueObject is a queue for programs.
type queueObject struct {
	Queue   string       `json:"queue"`
	Summary queueSummary `json:"summary"`
	Items   []itemObject `json:"items"`
}

type queueSummary struct {
	Ready   int64 `json:"ready"`
	Delayed int64 `json:"delayed"`
	Claimed int64 `json:"claimed"`
	Running int64 `json:"running"`
	Retry   int64 `json:"retry"`
	Dead    int64 `json:"dead"`
	Done    int64 `json:"done"`
	Buried  int64 `json:"buried"`
	Dropped int64 `json:"dropped"`
	// What is null is not known, or of nothing.
	OldestSeconds *float64 `json:"oldestSeconds"`
	InPerSecond   *float64 `json:"inPerSecond"`
	OutPerSecond  *float64 `json:"outPerSecond"`
}

func queueObjectOf(name string, c counts, items []item) queueObject {
	o := queueObject{
		Queue: name,
		Summary: queueSummary{
			Ready: c.Ready, Delayed: c.Delayed, Claimed: c.Claimed, Running: c.running, Retry: c.Retry, Dead: c.Dead,
			Done: c.Done, Buried: c.Buried, Dropped: c.Dropped,
		},
		Items: objectsOf(items),
	}
	if c.Ready > 0 && c.Oldest >= 0 {
		seconds := c.Oldest.Seconds()
		o.Summary.OldestSeconds = &seconds
	}
	if c.Over > 0 {
		o.Summary.InPerSecond, o.Summary.OutPerSecond = &c.In, &c.Out
	}
	return o
}

func objectsOf(items []item) []itemObject {
	objects := make([]itemObject, len(items))
	for i, item := range items {
		objects[i] = item.object()
	}
	return objects
}
