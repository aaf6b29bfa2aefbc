package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// claimManifest is a ScaledJob that claims from a Redis. What its runs do is up to the item and to files of the folder.
func claimManifest(address, dir string) string {
	return `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: work}
spec:
  pollingInterval: 1
  maxReplicaCount: 5
  delivery: {mode: claim, attempts: 2, backoff: {initial: 1h, max: 2h}}
  jobTargetRef:
    backoffLimit: 0
    template:
      spec:
        restartPolicy: Never
        containers:
          - name: main
            command:
              - sh
              - -c
              - |
                echo "this is $OFFBOARD_ITEM_ID"
                case "$OFFBOARD_ITEM" in
                  never) [ -e "` + dir + `/mended" ] || exit 65 ;;
                  fails) exit 3 ;;
                  waits) while [ ! -e "` + dir + `/go" ]; do sleep 0.05; done ;;
                esac
  triggers: [{type: redis, metadata: {listName: "work {1}", listLength: "1", address: "` + address + `"}}]
`
}

// machine is an offboard up that runs in the test's process.
type machine struct {
	t       *testing.T
	dataDir string
}

func startMachine(t *testing.T, dir, manifest string) *machine {
	t.Helper()
	file := filepath.Join(dir, "work.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &machine{t, filepath.Join(dir, "data")}
	ctx, cancel := context.WithCancel(context.Background())
	var log syncBuffer
	done := make(chan int, 1)
	go func() {
		o := options(m.dataDir, nil, &log, &log, "up", "-f", file, "--grace", "1s")
		o.Environ, o.now = append(o.Environ, "PATH="+os.Getenv("PATH")), nil
		done <- Execute(ctx, o)
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-done; code != 0 || t.Failed() {
			t.Errorf("up ended with exit code %d: %s", code, log.String())
		}
	})
	log.waitFor(t, "offboard is up")
	return m
}

func (m *machine) run(stdin string, args ...string) result {
	var out, errOut syncBuffer
	o := options(m.dataDir, strings.NewReader(stdin), &out, &errOut, args...)
	o.now = nil
	code := Execute(m.t.Context(), o)
	return result{code, out.String(), errOut.String()}
}

func (m *machine) must(args ...string) string {
	m.t.Helper()
	got := m.run("", args...)
	if got.code != 0 || got.err != "" {
		m.t.Fatalf("%q: got %+v", args, got)
	}
	return got.out
}

// eventually waits until the output of the command holds the text, with any blanks between its words.
func (m *machine) eventually(text string, args ...string) string {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		out := m.must(args...)
		if strings.Contains(strings.Join(strings.Fields(out), " "), text) {
			return out
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("waited in vain for %q in the output of %q: %s", text, args, out)
		}
	}
}

// TestQueueStory follows items on one machine: through a run, a retry, death and life after it.
func TestQueueStory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	dir, err := os.MkdirTemp("", "os") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := startMachine(t, dir, claimManifest(server.Addr(), dir))
	const list = "work {1}"
	touch := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	m.must("push", list, "never", "fails", "waits", "ok")
	out := m.must("push", list, "later", "--in", "1h")
	later := strings.Split(out, "\n")[1]
	if len(later) != 16 || !strings.HasPrefix(out, "pushed 1 item to work {1}, due in 60m\n") {
		t.Errorf("got %q", out)
	}
	out = m.must("push", list, "soon", "--in", "300ms", "--unique", "key", "--for", "1h")
	soon := strings.Split(out, "\n")[1]
	if got := m.run("", "push", list, "soon", "--unique", "key", "--for", "1s"); got.code != exitRefused ||
		!strings.Contains(got.err, "item "+soon+" of work {1} holds the unique key \"key\"") {
		t.Errorf("got %+v", got)
	}
	// 2 are done ("ok" and "soon"), 1 is put off, 1 is dead, 1 runs, 1 is for later.
	m.eventually("OUT 0 1 0 1 1 1 2 1 0", "queue", list)
	out = m.must("queue", list)
	for _, want := range []string{"running 1 work-", "retry 1 -", "delayed 0 -", "dead 1 -"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("want %q in %s", want, out)
		}
	}
	m.eventually("Running waits", "jobs") // from the annotation: no runner has reported it
	waits := strings.Fields(strings.Split(m.must("queue", list, "--state", "running"), "\n")[4])
	if job := m.must("jobs", waits[3], "-o", "name"); job != "job.batch/"+waits[3]+"\n" {
		t.Errorf("got %q of %q", job, waits)
	}
	if got := m.run("", "release", list, "--yes"); got.code != exitRefused || got.out != "" ||
		!strings.Contains(got.err, "item "+waits[0]+", attempt 1: Job default/"+waits[3]+" is Running\n") {
		t.Errorf("got %+v", got)
	}

	out = m.must("dead", "ls", list)
	dead := strings.Fields(strings.Split(out, "\n")[1])
	if dead[1] != "1" || dead[4] != "65" || dead[6] != "never" {
		t.Errorf("got %s", out)
	}
	out = m.must("dead", "show", list, dead[0])
	for _, want := range []string{"State: dead", "Exit code: 65", "Job: work-", "this is " + dead[0], "Item (5 bytes): never"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("want %q in %s", want, out)
		}
	}
	if out := m.must("dead", "show", list, dead[0], "--raw"); out != "never" {
		t.Errorf("got %q", out)
	}
	if got := m.run("", "dead", "drop", list, later); got.code != exitNotFound {
		t.Errorf("what is delayed was dropped: %+v", got)
	}
	touch("mended")
	if out := m.must("dead", "retry", list, "--match", "never"); out != "retried 1 dead item of work {1}\n" {
		t.Errorf("got %q", out)
	}
	touch("go")
	m.eventually("OUT 0 1 0 0 1 0 4 1 0", "queue", list)

	// What a ScaledJob has left behind that is gone is claimed again once it is released.
	m.must("pause", "work")
	m.eventually("True paused", "get", "work") // a look that began before it claims no more
	m.must("push", list, "a", "b")
	q := redisqueue.New(scripts{server}, list)
	if result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "default/gone", Most: 2}); err != nil || len(result.Claims) != 2 {
		t.Fatalf("got %+v, %v", result, err)
	}
	if out := m.must("release", list, "--owner", "default/other", "--yes"); out != "no item of work {1} is claimed by default/other\n" {
		t.Errorf("got %q", out)
	}
	if got := m.run("y\n", "release", list); got.code != 0 || got.out != "gave 2 items back to the head of work {1}\n" {
		t.Errorf("got %+v", got)
	}
	reply := server.Do("LRANGE", list, "0", "-1")
	if got, err := reply.AsStrSlice(); err != nil || strings.Join(got, " ") != "a b" {
		t.Errorf("got %q, %v", got, err)
	}
	m.must("resume", "work")
	m.eventually("OUT 0 1 0 0 1 0 6 1 0", "queue", list)
}

// scripts runs the scripts of a queue.
type scripts struct{ server *redistest.Server }

func (s scripts) Eval(_ context.Context, script redisqueue.Script, keys, args []string) (any, error) {
	client := s.server.Client()
	return client.Do(context.Background(), client.B().Eval().Script(script.Body).Numkeys(int64(len(keys))).Key(keys...).
		Arg(args...).Build()).ToAny()
}
