package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/scaling"
	"github.com/offboard-dev/offboard/internal/simulate"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// strategyClaim is how delivery by claim is called among the strategies, of which it needs none.
const strategyClaim = "claim"

// The kinds of --arrivals.
const (
	arrivalsPoisson = "poisson"
	arrivalsEven    = "even"
)

type simulateFlags struct {
	files     []string
	namespace string
	trace     string
	rate      string
	length    time.Duration
	work      string
	arrivals  choice
	seed      uint64
	start     string
	take      int
	limits    []int64
	strategy  []string
	reaction  []string
	svg       string
	output    choice
}

func (a *app) simulateCommand() *cobra.Command {
	f := simulateFlags{
		arrivals: choice{value: arrivalsPoisson, allowed: []string{arrivalsPoisson, arrivalsEven}},
		output:   choice{allowed: []string{outputJSON, outputYAML}},
	}
	cmd := &cobra.Command{
		Use:   "simulate [NAME] -f FILE",
		Short: "Compare strategies and limits before they meet real work",
		Long: `Play the arrival of items against the decisions that Offboard makes, on a virtual clock, and compare what
becomes of them with each strategy and limit. NAME is the ScaledJob; it may be left out where there is one only. Nothing
is started, and no queue is asked.

The arrivals are a trace (--trace), or are made up: --rate of them for --for long, at random (a Poisson process) or
evenly, each with --work to do. A trace has one arrival a line, as CSV or JSON:
  TIME[,WORK]                        2026-03-04T12:00:00Z,90s or 12.5,1m30s
  {"time": TIME, "work": WORK}       {"time": 12.5, "work": 90}
TIME is in RFC 3339, or in seconds from the start, on all lines alike. WORK is a duration or a number of seconds; lines
without it get --work. A duration of --work and --start is 30s, or exp:30s for an exponential distribution with that
mean, or 1s..100s for an even one between the two.

Each row is one run. * marks the manifest as it is. STRATEGY claim is delivery by claim, the others are delivery by pop.
REACTION push is Offboard's: it decides at each change. poll is KEDA's: it decides each pollingInterval from what it
measures then. JOBS were created, and SURPLUS of them found nothing to do. P50 to MAX is how long items waited until
work on them began: half of them no longer than P50. QUEUE is the most items that waited at once. SLOTS says how much of
the limit's time went into work, BUSY how much of the Jobs' time did. DONE is when the last item was, LEFT how many
nothing would have taken.

` + exitHelp,
		Example: `  offboard simulate -f examples/usertask/ --rate 1/s --for 1h --work exp:10s
  offboard simulate usertask -f chart.yaml --trace arrivals.csv --limit 5,10,25,50 --svg plot.svg
  zcat arrivals.csv.gz | offboard simulate -f scaledjob.yaml --trace - --work 1s..100s
  offboard simulate -f . --rate 300/m --work 30s --strategy custom,claim --reaction push -o json`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simulate(cmd, &f, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(cmd)
	return cmd
}

func (f *simulateFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "file or folder, or - for standard input; may be repeated")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the ScaledJob, where several have that name")
	flags.StringVar(&f.trace, "trace", "", "file with arrivals, or - for standard input")
	flags.StringVar(&f.rate, "rate", "", "how many items arrive, for example 5/s, 300/m or 0.5/h")
	flags.DurationVar(&f.length, "for", 10*time.Minute, "how long items arrive")
	flags.StringVar(&f.work, "work", "", "how long the work on an item takes")
	choiceVar(cmd, &f.arrivals, "arrivals", "", "how items of --rate arrive")
	flags.Uint64Var(&f.seed, "seed", 1, "another number makes another random course; the same one, the same")
	flags.StringVar(&f.start, "start", "2s", "how long it takes from the creation of a Job until it takes its item")
	flags.IntVar(&f.take, "take", 0, "items that a Job works on, one after another (default the trigger's listLength)")
	flags.Int64SliceVar(&f.limits, "limit", nil, "values of maxReplicaCount to try, separated by commas (default the "+
		"manifest's)")
	flags.StringSliceVar(&f.strategy, "strategy", strategies(), "strategies to try, separated by commas")
	flags.StringSliceVar(&f.reaction, "reaction", reactions(), "when to decide: push, poll, or both")
	flags.StringVar(&f.svg, "svg", "", "write a plot to this file")
	choiceVar(cmd, &f.output, "output", "o", "output format")
	for _, flag := range []string{"namespace", "rate", "for", "work", "seed", "start", "take", "limit"} {
		complete(cmd, flag, cobra.NoFileCompletions)
	}
	complete(cmd, "strategy", cobra.FixedCompletions(strategies(), cobra.ShellCompDirectiveNoFileComp))
	complete(cmd, "reaction", cobra.FixedCompletions(reactions(), cobra.ShellCompDirectiveNoFileComp))
}

func strategies() []string {
	return []string{v1alpha1.StrategyDefault, v1alpha1.StrategyCustom, v1alpha1.StrategyAccurate, v1alpha1.StrategyEager,
		strategyClaim}
}

func reactions() []string { return []string{string(simulate.Push), string(simulate.Poll)} }

// simulated is one run, as -o json has it.
type simulated struct {
	// Manifest tells that this is what the manifest says.
	Manifest bool              `json:"manifest"`
	Strategy string            `json:"strategy"`
	Limit    int64             `json:"maxReplicaCount"`
	Reaction simulate.Reaction `json:"reaction"`
	simulate.Result
	DoneSeconds float64 `json:"doneSeconds"`
}

// simulation is what -o json prints.
type simulation struct {
	Namespace string `json:"namespace"`
	ScaledJob string `json:"scaledJob"`
	Arrivals  int    `json:"arrivals"`
	// OfferedLoad is how many Jobs the work keeps busy on average while items arrive.
	OfferedLoad float64     `json:"offeredLoad"`
	Runs        []simulated `json:"runs"`

	length time.Duration
}

func (a *app) simulate(cmd *cobra.Command, f *simulateFlags, args []string) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	sj, err := a.manifestOf(f, args)
	if err != nil {
		return err
	}
	config, err := f.config(a, sj)
	if err != nil {
		return err
	}
	arrivals, err := a.arrivals(f)
	if err != nil {
		return err
	}
	s := simulation{Namespace: sj.Namespace, ScaledJob: sj.Name, Arrivals: len(arrivals)}
	s.measure(arrivals)
	if s.Runs, err = f.runs(sj); err != nil {
		return err
	}
	if err := s.run(cmd.Context(), config, arrivals); err != nil {
		return err
	}
	if f.svg != "" {
		if err := os.WriteFile(f.svg, s.plot(), 0o644); err != nil { //nolint:gosec // a plot is for others to see as well
			return fmt.Errorf("write the plot: %w", err)
		}
	}
	if f.output.value != outputTable {
		return printObject(a.Out, f.output.value, s)
	}
	return s.print(a)
}

// check returns what contradicts itself among the flags.
func (f *simulateFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case len(f.files) == 0:
		return usageErrorf("there is no manifest: name one with -f FILE, or - for standard input")
	case f.trace == "" && f.rate == "":
		return usageErrorf("there are no arrivals: give --trace FILE, or --rate 5/s --for 10m --work 30s")
	case f.trace != "" && f.rate != "":
		return usageErrorf("--trace and --rate exclude each other")
	case f.trace == "-" && slices.Contains(f.files, "-"):
		return usageErrorf("standard input cannot be both the manifest and the trace")
	case f.trace != "" && (given("for") || given("arrivals")):
		return usageErrorf("--for and --arrivals are for --rate; a trace has its own times")
	case f.rate != "" && f.work == "":
		return usageErrorf("--rate needs --work: how long the work on an item takes, for example 30s or exp:30s")
	case given("take") && f.take < 1:
		return usageErrorf("--take is %d, must be 1 or more", f.take)
	}
	for _, limit := range f.limits {
		if limit < 1 || limit > maxLimit {
			return usageErrorf("--limit: %d is not between 1 and %d", limit, maxLimit)
		}
	}
	if err := oneOf("--strategy", f.strategy, strategies()); err != nil {
		return err
	}
	return oneOf("--reaction", f.reaction, reactions())
}

// maxLimit is the highest of --limit: above it the memory for Jobs is no longer small.
const maxLimit = 1_000_000

func oneOf(flag string, values, allowed []string) error {
	for _, value := range values {
		if !slices.Contains(allowed, value) {
			return usageErrorf("%s: %q must be one of %s", flag, value, strings.Join(allowed, ", "))
		}
	}
	return nil
}

// manifestOf reads the ScaledJob that is to be simulated.
func (a *app) manifestOf(f *simulateFlags, args []string) (*v1alpha1.ScaledJob, error) {
	set := manifest.Read(a.In, f.files...)
	if err := manifest.Validate(set, all.Types()).Err(); err != nil {
		return nil, usageError{err}
	}
	var names []string
	var found []*v1alpha1.ScaledJob
	for _, sj := range manifest.All[*v1alpha1.ScaledJob](set) {
		if f.namespace != "" && sj.Namespace != f.namespace {
			continue
		}
		names = append(names, sj.Name)
		if len(args) == 0 || args[0] == sj.Name {
			found = append(found, sj)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(names) == 0:
		return nil, notFoundError("there is no ScaledJob in " + strings.Join(f.files, ", "))
	case len(found) == 0:
		return nil, notFoundError(fmt.Sprintf("there is no ScaledJob %q in %s%s", args[0],
			strings.Join(f.files, ", "), didYouMean(args[0], names)))
	case len(args) == 0:
		return nil, usageErrorf("there are %d ScaledJobs: name one of %s", len(names), strings.Join(names, ", "))
	}
	return nil, usageErrorf("there are %d ScaledJobs %s: say which one with -n NAMESPACE", len(found), args[0])
}

// config returns what all runs have in common.
func (f *simulateFlags) config(a *app, sj *v1alpha1.ScaledJob) (simulate.Config, error) {
	config := simulate.Config{Rule: scaling.RuleOf(sj), Polling: sj.Polling(), Take: f.take, Seed: f.seed}
	var err error
	if config.Start, err = simulate.ParseSpread(f.start); err != nil {
		return config, usageErrorf("--start: %w", err)
	}
	first := sj.Spec.Triggers[0]
	kind, _ := trigger.Find(all.Types(), first.Type) // the manifest is valid
	threshold, ok := kind.ThresholdOf(first.Metadata)
	if !ok {
		return config, usageErrorf("trigger type %s does not tell how much work a Job takes, which a simulation needs",
			first.Type)
	}
	config.Target, config.Activation = threshold.Target, threshold.Activation
	if config.Take == 0 {
		config.Take = int(threshold.Target)
	}
	if n := len(sj.Spec.Triggers); n > 1 {
		_, _ = fmt.Fprintf(a.Err, "offboard: there are %d triggers: the items are those of the first, the others are taken "+
			"to be empty\n", n)
	}
	if advanced := sj.Spec.Advanced; advanced != nil && advanced.ScalingModifiers != nil {
		_, _ = fmt.Fprintln(a.Err, "offboard: the formula of advanced.scalingModifiers is left out")
	}
	return config, nil
}

// arrivals reads them or makes them up.
func (a *app) arrivals(f *simulateFlags) ([]simulate.Arrival, error) {
	var work *simulate.Spread
	if f.work != "" {
		parsed, err := simulate.ParseSpread(f.work)
		if err != nil {
			return nil, usageErrorf("--work: %w", err)
		}
		work = &parsed
	}
	if f.trace != "" {
		return a.readTrace(f, work)
	}
	rate, err := simulate.ParseRate(f.rate)
	if err != nil {
		return nil, usageErrorf("--rate: %w", err)
	}
	arrivals, err := simulate.Generator{
		Rate: rate, For: f.length, Even: f.arrivals.value == arrivalsEven, Work: *work, Seed: f.seed,
	}.Arrivals()
	if err != nil {
		return nil, usageErrorf("--rate and --for: %w", err)
	}
	if len(arrivals) == 0 {
		return nil, usageErrorf("--rate %s brings no item in %v: give a higher one, or a longer --for", f.rate, f.length)
	}
	return arrivals, nil
}

func (a *app) readTrace(f *simulateFlags, work *simulate.Spread) ([]simulate.Arrival, error) {
	reader, name := a.In, "standard input"
	if f.trace != "-" {
		file, err := os.Open(f.trace)
		if err != nil {
			return nil, usageErrorf("read the trace: %w", err)
		}
		defer func() { _ = file.Close() }()
		reader, name = io.Reader(file), f.trace
	}
	trace, err := simulate.ParseTrace(reader, work, f.seed)
	if err != nil {
		return nil, usageErrorf("%s: %w", name, err)
	}
	if trace.Unsorted > 0 {
		_, _ = fmt.Fprintf(a.Err, "offboard: %s: sorted, since lines have an earlier time than one above them: %d\n",
			printable(name, 0), trace.Unsorted)
	}
	return trace.Arrivals, nil
}

// measure looks at the work as a whole.
func (s *simulation) measure(arrivals []simulate.Arrival) {
	work := 0.0
	for _, arrival := range arrivals {
		work += arrival.Work.Seconds()
	}
	s.length = arrivals[len(arrivals)-1].At
	if s.length > 0 {
		s.OfferedLoad = work / s.length.Seconds()
	}
}

// runs returns the runs that are to be compared.
func (f *simulateFlags) runs(sj *v1alpha1.ScaledJob) (runs []simulated, err error) {
	own, ownLimit := cmp.Or(sj.Spec.ScalingStrategy.Strategy, v1alpha1.StrategyDefault), scaling.RuleOf(sj).Limit()
	if sj.ClaimsItems() {
		own = strategyClaim
	}
	limits := f.limits
	if len(limits) == 0 {
		limits = []int64{ownLimit}
	}
	for _, limit := range limits {
		for _, reaction := range f.reaction {
			for _, strategy := range f.strategy {
				run := simulated{Strategy: strategy, Limit: limit, Reaction: simulate.Reaction(reaction)}
				if strategy == strategyClaim && run.Reaction == simulate.Poll {
					continue // KEDA has no such delivery
				}
				run.Manifest = strategy == own && limit == ownLimit && run.Reaction == simulate.Push
				runs = append(runs, run)
			}
		}
	}
	if len(runs) == 0 {
		return nil, usageErrorf("there is nothing to compare: delivery by claim needs --reaction push")
	}
	return runs, nil
}

// run plays all runs, as many at a time as there are processors.
func (s *simulation) run(ctx context.Context, config simulate.Config, arrivals []simulate.Arrival) error {
	playing, ctx := errgroup.WithContext(ctx)
	playing.SetLimit(runtime.GOMAXPROCS(0))
	for i := range s.Runs {
		playing.Go(func() (err error) {
			run := &s.Runs[i]
			config := config
			config.Rule.Strategy, config.Rule.Max = run.Strategy, &run.Limit
			config.Claim, config.Reaction = run.Strategy == strategyClaim, run.Reaction
			run.Result, err = simulate.Run(ctx, config, arrivals)
			run.DoneSeconds = run.Done.Seconds()
			return err
		})
	}
	return playing.Wait()
}

// summary says in one line what arrives.
func (s *simulation) summary() string {
	return fmt.Sprintf("%s in %s, with work for %.3g Jobs at once on average",
		plural(s.Arrivals, "arrival"), shortDuration(s.length.Seconds()), s.OfferedLoad)
}

func (s *simulation) plot() []byte {
	panels := make([]simulate.Panel, len(s.Runs))
	for i, run := range s.Runs {
		title := fmt.Sprintf("%s, limit %d, %s: %d Jobs, p50 %s, p95 %s", run.Strategy, run.Limit, run.Reaction, run.Jobs,
			shortDuration(run.Wait.P50), shortDuration(run.Wait.P95))
		if run.Surplus > 0 {
			title += fmt.Sprintf(", %d surplus", run.Surplus)
		}
		if run.Left > 0 {
			title += fmt.Sprintf(", %d items left", run.Left)
		}
		if run.Manifest {
			title += " (the manifest)"
		}
		panels[i] = simulate.Panel{Title: title, Limit: run.Limit, Reaction: run.Reaction, Result: run.Result}
	}
	return simulate.Plot("ScaledJob "+s.Namespace+"/"+s.ScaledJob, s.summary(), panels)
}

// print writes the table.
func (s *simulation) print(a *app) error {
	if _, err := fmt.Fprintf(a.Out, "%s\n\n", s.summary()); err != nil {
		return err
	}
	t := table{coloured: a.colours(a.Out), header: []string{
		"STRATEGY", "LIMIT", "REACTION", "JOBS", "SURPLUS", "P50", "P95", "P99", "MAX", "QUEUE", "SLOTS", "BUSY", "DONE",
		"LEFT",
	}}
	rows := make([]row, len(s.Runs))
	for i, run := range s.Runs {
		strategy, surplus, left := plain(run.Strategy), number(run.Surplus), number(run.Left)
		if run.Manifest {
			strategy = cell{text: run.Strategy + "*", colour: []color.Attribute{color.Bold}}
		}
		if run.Surplus > 0 {
			surplus.colour = []color.Attribute{color.FgYellow}
		}
		if run.Left > 0 {
			left.colour = []color.Attribute{color.FgRed}
		}
		rows[i] = row{cells: []cell{
			strategy, number(run.Limit), plain(string(run.Reaction)), number(run.Jobs), surplus,
			plain(shortDuration(run.Wait.P50)), plain(shortDuration(run.Wait.P95)), plain(shortDuration(run.Wait.P99)),
			plain(shortDuration(run.Wait.Max)), number(run.LongestQueue), plain(percent(run.SlotUse)),
			plain(percent(run.JobUse)), plain(shortDuration(run.DoneSeconds)), left,
		}}
	}
	return t.print(a.Out, rows)
}

func percent(share float64) string { return strconv.FormatFloat(share*100, 'f', 0, 64) + "%" }

// shortDuration writes seconds with three digits or so: 45ms, 2.31s, 14m5s, 3h20m, 4d3h.
func shortDuration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 24*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	d = d.Round(time.Hour)
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
