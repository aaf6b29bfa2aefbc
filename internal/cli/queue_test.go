package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
)

// jobFor is a Job that was made for an item of the queue q.
func jobFor(id string, attempt int, pods ...*corev1.Pod) control.JobInfo {
	job := aJob("usertask-"+id, time.Minute)
	job.Annotations = map[string]string{
		v1alpha1.AnnotationItemID: id, v1alpha1.AnnotationAttempt: strconv.Itoa(attempt), v1alpha1.AnnotationQueue: "q",
	}
	return control.JobInfo{Job: job, Pods: pods}
}

func recordOf(id string, state queue.State, item string) queue.Record {
	return queue.Record{
		Claim: queue.Claim{ID: id, Attempt: 1, Parts: [][]byte{[]byte(item)}, First: today.Add(-time.Hour)},
		State: state, Size: int64(len(item)),
	}
}

// someItems is an `offboard up` with a queue q that has items in all states.
func someItems() *fakeUp {
	claimed := func(id, owner string) queue.Record {
		r := recordOf(id, queue.Claimed, "claimed "+id)
		r.Owner, r.Since = owner, today.Add(-time.Minute)
		return r
	}
	leased := claimed("c5", "runner-1")
	leased.At = today.Add(20 * time.Second)
	retry := recordOf("d1", queue.Retry, "retry")
	retry.At, retry.Attempt, retry.Failures, retry.Total = today.Add(5*time.Minute), 2, 1, 1
	delayed := recordOf("e1", queue.Delayed, strings.Repeat("long ", 1000))
	delayed.At, delayed.Attempt = today.Add(-time.Second), 0
	dead := func(id, item, reason string, ago time.Duration) queue.Record {
		r := recordOf(id, queue.Dead, item)
		r.At, r.Attempt, r.Failures, r.Total = today.Add(-ago), 3, 2, 3
		r.FirstFailure = &queue.Failure{Reason: "Error", Message: "exit code 1", ExitCode: ptr.To(1), At: today.Add(-2 * ago)}
		r.LastFailure = &queue.Failure{
			Reason: reason, Message: "it was " + reason, Signal: "SIGKILL", Job: "usertask-" + id, At: today.Add(-ago),
			Log: "one\ntwo \x1b[2J\n",
		}
		return r
	}
	binary := dead("f2", "\x00\xff", "OOMKilled", time.Minute)
	binary.Parts, binary.Size = [][]byte{[]byte("\x00\xff"), []byte("text\n\tmore\n")}, 13
	sj := scaledJob("default", "usertask")
	sj.Spec.Delivery = &v1alpha1.Delivery{Mode: v1alpha1.DeliveryClaim}
	sj.Spec.Triggers[0].Metadata["listName"] = "q"
	ended := jobFor("c3", 1)
	ended.Job.Status.Conditions = []batchv1.JobCondition{isTrue(batchv1.JobComplete, time.Second)}
	other := jobFor("c1", 1, aPod("p", corev1.PodRunning, exited(0), running()))
	other.Job.Name, other.Job.Annotations[v1alpha1.AnnotationQueue] = "of-another-queue", "r"
	return &fakeUp{
		scaledJobs: []control.ScaledJobInfo{{Object: sj}},
		jobs: []control.JobInfo{
			jobFor("c1", 1, aPod("p", corev1.PodRunning, exited(0), running())), jobFor("c2", 2), ended, other,
		},
		stats: queue.Stats{
			Ready: 2, Delayed: 1, Claimed: 5, Leased: 1, Retry: 1, Dead: 3, Done: 10, Buried: 4, Dropped: 1,
			Oldest: 90 * time.Second, In: 1.234, Out: 0.001, Over: time.Minute,
		},
		records: map[queue.State][]queue.Record{
			queue.Ready: {
				{State: queue.Ready, Size: 3, Claim: queue.Claim{Parts: [][]byte{[]byte("\x1b[2")}}},
				recordOf("b1", queue.Ready, "known"),
			},
			queue.Claimed: {
				claimed("c1", "default/usertask"), claimed("c2", "default/usertask"), claimed("c3", "default/usertask"),
				claimed("c4", "default/gone"), leased,
			},
			queue.Retry:   {retry},
			queue.Delayed: {delayed},
			queue.Dead: {
				dead("f1", `{"user": 1}`, "DeadlineExceeded", time.Hour), binary,
				dead("f3", strings.Repeat("x", 5000)+"needle", "Error", time.Second),
			},
		},
	}
}

func TestQueue(t *testing.T) {
	t.Parallel()
	up := someItems()
	dataDir, _ := up.start(t)
	for name, args := range map[string][]string{
		"queue":         {"q"},
		"queue-wide":    {"q", "-o", "wide"},
		"queue-dead":    {"q", "--state", "dead", "--limit", "1"},
		"queue-none":    {"q", "--limit", "0"},
		"queue-json":    {"q", "-o", "json", "--state", "claimed"},
		"queue-yaml":    {"q", "-o", "yaml", "--state", "running"},
		"queue-name":    {"q", "-o", "name"},
		"queue-unknown": {"usertsk"},
		"queue-state":   {"q", "--state", "done"},
	} {
		golden(t, name, execute(t, dataDir, "", append([]string{"queue"}, args...)...))
	}
	up.change(func() { up.stats = queue.Stats{Ready: 1, Oldest: -1}; up.records, up.jobs = nil, nil })
	golden(t, "queue-idle", execute(t, dataDir, "", "queue", "q"))
	var object struct{ Summary map[string]any }
	out := execute(t, dataDir, "", "queue", "q", "-o", "json").out
	if err := json.Unmarshal([]byte(out), &object); err != nil || object.Summary["oldestSeconds"] != nil ||
		object.Summary["inPerSecond"] != nil {
		t.Errorf("got %s, %v", out, err)
	}
}

func TestQueueUsage(t *testing.T) {
	t.Parallel()
	dataDir, _ := someItems().start(t)
	for args, want := range map[string]string{
		"queue":                                "accepts 1 arg(s), received 0",
		"queue q --limit -1":                   "--limit is -1, must not be negative",
		"queue q -A -n x":                      "-n and -A exclude each other",
		"queue q -A -s x":                      "use -n NAMESPACE with --scaledjob, not -A",
		"dead lst q":                           "unknown command \"lst\"; did you mean ls?; see: offboard dead --help",
		"dead show q":                          "accepts 2 arg(s), received 1",
		"dead show q f1 --raw -o json":         "--raw and -o exclude each other",
		"dead retry":                           "requires at least 1 arg(s)",
		"dead retry q":                         "say which items to retry",
		"dead drop q":                          "say which items to drop: give their ids, a filter",
		"dead drop q --dry-run":                "say which items to drop",
		"dead drop q f1 --all":                 "ids exclude --all and filters",
		"dead drop q f1 --reason x":            "ids exclude --all and filters",
		"dead drop q --all --older-than 1h":    "--all excludes filters",
		"dead drop q --older-than soon":        "invalid argument",
		"push q a --in 1m --at 12:00":          "--in and --at exclude each other",
		"push q a --in 0s":                     "--in is 0s, must be 1ms or more",
		"push q a --in -1m":                    "--in is -1m0s, must be 1ms or more",
		"push q a --at noon":                   `--at is "noon", must be a time such as`,
		"push q a --unique k":                  "--unique needs --for",
		"push q a --unique= --for 1h":          "must not be empty",
		"push q a --for 1h":                    "--for needs --unique KEY",
		"push q a --unique k --for 1us":        "--for is 1µs, must be 1ms or more",
		"push q a b --unique k --for 1h":       "a unique key is for one item",
		"push q - --lines --unique k --for 1h": "a unique key is for one item",
		"release":                              "accepts 1 arg(s), received 0",
	} {
		got := execute(t, dataDir, "1\n2\n", strings.Fields(args)...)
		if got.code != exitUsage || !strings.Contains(got.err, want) || got.out != "" {
			t.Errorf("%s: got %+v, want %q", args, got, want)
		}
	}
}

func TestDead(t *testing.T) {
	t.Parallel()
	dataDir, _ := someItems().start(t)
	for name, args := range map[string][]string{
		"dead-ls":           {"ls", "q"},
		"dead-ls-wide":      {"ls", "q", "-o", "wide", "--older-than", "1m"},
		"dead-ls-json":      {"ls", "q", "-o", "json", "--reason", "oomk"},
		"dead-show":         {"show", "q", "f1"},
		"dead-show-yaml":    {"show", "q", "f1", "-o", "yaml"},
		"dead-show-binary":  {"show", "q", "f2"},
		"dead-show-retry":   {"show", "q", "d1"},
		"dead-show-unknown": {"show", "q", "nope"},
		"dead-dry-run":      {"drop", "q", "--match", "user", "--dry-run"},
		"dead-dry-run-ids":  {"retry", "q", "f3", "d1", "f1", "--dry-run"},
	} {
		golden(t, name, execute(t, dataDir, "", append([]string{"dead"}, args...)...))
	}
	if got := execute(t, dataDir, "", "dead", "show", "q", "f2", "--raw"); got != (result{0, "\x00\xfftext\n\tmore\n", ""}) {
		t.Errorf("got %+v", got)
	}
	if got := execute(t, dataDir, "", "dead", "show", "other", "f2"); got.code != exitNotFound {
		t.Errorf("got %+v", got)
	}
	if got := execute(t, dataDir, "", "dead", "ls", "q", "--reason", "nothing"); got != (result{0, "", "No dead items found in q.\n"}) {
		t.Errorf("got %+v", got)
	}
	if got := execute(t, dataDir, "", "dead"); got.code != 0 || !strings.Contains(got.out, "retry") {
		t.Errorf("got %+v", got)
	}
}

func TestDeadChanges(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		result
		changed []string
	}{
		"retry q f2 f1":                       {result{0, "retried 2 dead items of q\n", ""}, []string{"f2", "f1"}},
		"retry q f2 f2":                       {result{0, "retried 1 dead item of q\n", ""}, []string{"f2"}},
		"drop q f1 d1 x":                      {result{exitNotFound, "dropped 1 dead item of q\n", "offboard: not among the dead items of q: d1, x\n"}, []string{"f1"}},
		"retry q --all":                       {result{0, "retried 3 dead items of q\n", ""}, []string{"f1", "f2", "f3"}},
		"drop q --reason DEAD":                {result{0, "dropped 1 dead item of q\n", ""}, []string{"f1"}},
		"drop q --match need":                 {result{0, "dropped 1 dead item of q\n", ""}, []string{"f3"}}, // behind what is listed
		"drop q --match none":                 {result{0, "dropped 0 dead items of q\n", ""}, nil},
		"retry q --older-than 1m --reason it": {result{0, "retried 2 dead items of q\n", ""}, []string{"f1", "f2"}},
		"retry q --all --dry-run":             {result{0, "", ""}, nil},
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			up := someItems()
			dataDir, _ := up.start(t)
			got := execute(t, dataDir, "", append([]string{"dead"}, strings.Fields(args)...)...)
			if strings.Contains(args, "--dry-run") {
				got.out = ""
			}
			if got != want.result {
				t.Errorf("got %+v, want %+v", got, want.result)
			}
			changed := slices.Concat(up.changed[control.RetryDead], up.changed[control.DropDead])
			if !slices.Equal(changed, want.changed) || len(up.changed) > 1 {
				t.Errorf("changed %q, want %q", up.changed, want.changed)
			}
		})
	}
}

// TestManyDead changes more than one request holds, so that the first ones end up at the head.
func TestManyDead(t *testing.T) {
	t.Parallel()
	up := someItems()
	var ids []string
	up.records[queue.Dead] = nil
	for i := range 2*changeAtOnce + 1 {
		ids = append(ids, fmt.Sprintf("%016x", i))
		up.records[queue.Dead] = append(up.records[queue.Dead], recordOf(ids[i], queue.Dead, "x"))
	}
	dataDir, _ := up.start(t)
	if got := execute(t, dataDir, "", "dead", "retry", "q", "--all"); got != (result{0, "retried 2001 dead items of q\n", ""}) {
		t.Errorf("got %+v", got)
	}
	if !slices.Equal(up.changed[control.RetryDead], ids) {
		t.Error("they are not in their order")
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args  string
		stdin string
		code  int
		out   string
		err   []string
		back  []string
	}{
		"busy": {"", "", exitRefused, "", []string{
			"offboard: 4 of 5 claimed items of q would run twice:\n",
			"  item c1, attempt 1: Job default/usertask-c1 is Running\n",
			"  item c2, attempt 1: ScaledJob default/usertask makes its Job; pause it first\n",
			"  item c3, attempt 1: Job default/usertask-c3 is Succeeded, and what that means for its item is not settled yet\n",
			"  item c5, attempt 1: runner runner-1 holds it for 20s if it does not go on\n",
			"nothing was given back; --force does it all the same\n",
		}, nil},
		"gone":        {"--owner default/gone --yes", "", 0, "gave 1 item back to the head of q\n", nil, []string{"c4"}},
		"asked":       {"--owner default/gone", " YES\n", 0, "gave 1 item back to the head of q\n", []string{"Give 1 item back to the head of q? [y/N] "}, []string{"c4"}},
		"denied":      {"--owner default/gone", "n\n", exitFailure, "", []string{"nothing was given back: answer with y, or give --yes"}, nil},
		"no answer":   {"--owner default/gone", "", exitFailure, "", []string{"[y/N] \noffboard: nothing was given back"}, nil},
		"nobody":      {"--owner nobody", "", 0, "no item of q is claimed by nobody\n", nil, nil},
		"all, forced": {"--force -y", "", 0, "gave 5 items back to the head of q\n", []string{"would run twice:\n"}, []string{"c1", "c2", "c3", "c4", "c5"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := someItems()
			dataDir, _ := up.start(t)
			got := execute(t, dataDir, test.stdin, append([]string{"release", "q"}, strings.Fields(test.args)...)...)
			if got.code != test.code || got.out != test.out || test.err == nil && got.err != "" {
				t.Errorf("got %+v, want exit code %d and %q", got, test.code, test.out)
			}
			for _, want := range test.err {
				if !strings.Contains(got.err, want) {
					t.Errorf("got %q, want %q in it", got.err, want)
				}
			}
			if back := up.changed[control.GiveBack]; !slices.Equal(back, test.back) {
				t.Errorf("gave back %q, want %q", back, test.back)
			}
		})
	}
}

// Jobs name the group of a stream, which the name of the queue does not.
func TestItemsOfAGroup(t *testing.T) {
	t.Parallel()
	up := someItems()
	for _, info := range up.jobs {
		info.Job.Annotations[v1alpha1.AnnotationQueue] += "/workers"
	}
	dataDir, _ := up.start(t)
	got := execute(t, dataDir, "", "queue", "q", "--state", "running")
	if !strings.Contains(got.out, "usertask-c1") {
		t.Errorf("got %+v, want the item's Job in it", got)
	}
	got = execute(t, dataDir, "", "release", "q", "--yes")
	if got.code != exitRefused || !strings.Contains(got.err, "Job default/usertask-c1 is Running") {
		t.Errorf("got %+v, want nothing given back", got)
	}
}

// Another group of the stream may have an item of the same id, of another ScaledJob.
func TestItemsOfAnotherGroup(t *testing.T) {
	t.Parallel()
	up := someItems()
	for _, info := range up.jobs {
		info.Job.Annotations[v1alpha1.AnnotationQueue] += "/others"
		info.Job.Labels[v1alpha1.LabelScaledJob] = "other"
	}
	dataDir, _ := up.start(t)
	if got := execute(t, dataDir, "", "queue", "q", "--state", "claimed"); strings.Contains(got.out, "usertask-c1") {
		t.Errorf("got %+v, want no Job of another ScaledJob in it", got)
	}
}

func TestPushLater(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args string
		want queue.PushOptions
		out  string
	}{
		"in":     {"a b --in 10m", queue.PushOptions{Delay: 10 * time.Minute}, "pushed 2 items to q, due in 10m\nid1\nid2\n"},
		"at":     {"a --at 2026-03-05T00:00:00+02:00", queue.PushOptions{At: today.Add(10 * time.Hour)}, "pushed 1 item to q, due at 2026-03-05 00:00:00 +02:00\nid1\n"},
		"clock":  {"a --at 11:30", queue.PushOptions{At: today.Add(23*time.Hour + 30*time.Minute)}, "pushed 1 item to q, due at 2026-03-05 11:30:00 +00:00\nid1\n"},
		"past":   {"a --at 2026-03-04T11:00:00Z", queue.PushOptions{At: today.Add(-time.Hour)}, "pushed 1 item to q, which holds 7 now\nid1\n"},
		"unique": {"a --unique k --for 1h", queue.PushOptions{Unique: "k", UniqueFor: time.Hour}, "pushed 1 item to q, which holds 7 now\nid1\n"},
		"both":   {"a --unique k --for 1h --in 1s", queue.PushOptions{Unique: "k", UniqueFor: time.Hour, Delay: time.Second}, "pushed 1 item to q, due in 1s\nid1\n"},
		"lines":  {"- --lines --in 1s", queue.PushOptions{Delay: time.Second}, "pushed 2 items to q, due in 1s\nid1\nid2\n"},
	} {
		up := someItems()
		dataDir, _ := up.start(t)
		got := execute(t, dataDir, "x\ny\n", append([]string{"push", "q"}, strings.Fields(test.args)...)...)
		if got != (result{0, test.out, ""}) {
			t.Errorf("%s: got %+v, want %q", name, got, test.out)
		}
		if !up.options.At.Equal(test.want.At) {
			t.Errorf("%s: until %v, want %v", name, up.options.At, test.want.At)
		}
		if up.options.At, test.want.At = (time.Time{}), (time.Time{}); up.options != test.want {
			t.Errorf("%s: pushed with %+v, want %+v", name, up.options, test.want)
		}
	}
	up := someItems()
	up.heldBy = "0a"
	dataDir, _ := up.start(t)
	got := execute(t, dataDir, "", "push", "q", "a", "--unique", "k\x1b", "--for", "1h")
	want := "offboard: nothing was pushed: item 0a of q holds the unique key \"k\\x1b\"\n"
	if got != (result{exitRefused, "", want}) {
		t.Errorf("got %+v", got)
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 28, 12, 30, 15, 0, berlin) // the clocks go forward in the next night
	for text, want := range map[string]string{
		"2026-03-04T05:06:07Z":      "2026-03-04T06:06:07+01:00",
		"2026-03-04T05:06:07.5Z":    "2026-03-04T06:06:07+01:00",
		"2026-03-04T05:06:07-08:00": "2026-03-04T14:06:07+01:00",
		"2026-07-04 05:06":          "2026-07-04T05:06:00+02:00",
		"2026-07-04 05:06:07":       "2026-07-04T05:06:07+02:00",
		"12:31":                     "2026-03-28T12:31:00+01:00",
		"12:30":                     "2026-03-29T12:30:00+02:00",
		"12:30:16":                  "2026-03-28T12:30:16+01:00",
		"00:00":                     "2026-03-29T00:00:00+01:00",
		"":                          "", "noon": "", "24:00": "", "12": "", "2026-03-04": "", "2026-02-30 12:00": "", "10m": "",
		"1 2:30": "", "2026-03-04T05:06:07": "",
	} {
		got, err := parseTime(text, now)
		if err != nil {
			if want != "" || codeOf(err) != exitUsage {
				t.Errorf("%q: %v", text, err)
			}
		} else if got := got.In(berlin).Format(time.RFC3339); got != want {
			t.Errorf("%q: got %s, want %q", text, got, want)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{
		"2026-03-04T05:06:07Z", "2026-03-04T05:06:07.123+02:00", "2026-03-04 05:06", "15:04", "15:04:05", "noon", "24:00",
	} {
		f.Add(seed, int64(1772625600))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		now := time.Unix(unix%(1<<36), 0).UTC()
		got, err := parseTime(text, now)
		switch {
		case err != nil:
			if codeOf(err) != exitUsage {
				t.Errorf("%q: %v is no error of usage", text, err)
			}
		case len(text) <= len("15:04:05"): // a clock: within the next day
			if d := got.Sub(now); d <= 0 || d > 24*time.Hour {
				t.Errorf("%q at %v is %v", text, now, got)
			}
		case got.Year() < 0 || got.Year() > 9999:
			t.Errorf("%q is %v", text, got)
		}
	})
}

func TestQueueCompletion(t *testing.T) {
	t.Parallel()
	dataDir, _ := someItems().start(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"queue", ""}, "q\n:4\n"},
		{[]string{"queue", "q", ""}, ":4\n"},
		{[]string{"queue", "q", "--state", ""}, "running\nclaimed\nretry\nready\ndelayed\ndead\n:4\n"},
		{[]string{"queue", "q", "-o", ""}, "json\nyaml\nwide\nname\n:4\n"},
		{[]string{"queue", "--scaledjob", ""}, "usertask\n:4\n"},
		{[]string{"dead", "retry", ""}, "q\n:4\n"},
		{[]string{"dead", "retry", "q", ""}, "f1\nf2\nf3\n:4\n"},
		{[]string{"dead", "drop", "q", "f1", "f"}, "f2\nf3\n:4\n"},
		{[]string{"dead", "show", "q", ""}, "f1\nf2\nf3\n:4\n"},
		{[]string{"dead", "show", "q", "f1", ""}, ":4\n"},
		{[]string{"dead", "ls", ""}, "q\n:4\n"},
		{[]string{"release", ""}, "q\n:4\n"},
		{[]string{"release", "q", "--owner", ""}, "default/usertask\n:4\n"},
		{[]string{"push", "q", "a", "--at", ""}, ":4\n"},
	} {
		got := execute(t, dataDir, "", append([]string{"__complete"}, test.args...)...)
		if got.code != 0 || got.out != test.want {
			t.Errorf("%q: got %+v, want %q", test.args, got, test.want)
		}
	}
}

func TestQueueNames(t *testing.T) {
	t.Parallel()
	up := someItems()
	up.scaledJobs[0].Object.Spec.Triggers = []v1alpha1.ScaleTriggers{
		{Type: "redis", Metadata: map[string]string{"listName": "list"}},
		{Type: "redis-streams", Metadata: map[string]string{"stream": "stream", "consumerGroup": "group"}},
		{Type: "nats-jetstream", Metadata: map[string]string{"stream": "tasks", "consumer": "worker"}},
		{Type: "rabbitmq", Metadata: map[string]string{"queueName": "queue"}},
		{Type: "postgresql", Metadata: map[string]string{"query": "SELECT 1", "claimTable": "jobs"}},
		{Type: "cron", Metadata: map[string]string{"timezone": "UTC"}},
	}
	dataDir, _ := up.start(t)
	got := execute(t, dataDir, "", "__complete", "queue", "")
	if want := "list\nstream\ntasks/worker\nqueue\njobs\n:4\n"; got.code != 0 || got.out != want {
		t.Errorf("got %+v, want %q", got, want)
	}
}
