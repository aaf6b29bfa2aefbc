package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// external is the part of a trigger and the environment of a runner that lead to a server.
func external(manifest string, redis *redistest.Server) string {
	return strings.NewReplacer(
		`listLength: "1"`, fmt.Sprintf(`listLength: "1", address: %q`, redis.Addr()),
		"{name: REDIS_LIST, value: work}", fmt.Sprintf(
			"{name: REDIS_LIST, value: work}, {name: REDIS_HOST, value: 127.0.0.1}, {name: REDIS_PORT, value: %q}", redis.Port()),
	).Replace(manifest)
}

// TestRedisGoesAndComes stops Redis in the middle of the work and starts it again.
func TestRedisGoesAndComes(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.Options{AppendOnly: true, Directives: []string{"appendfsync always"}})
	manifest := external(scaledJob("  maxReplicaCount: 2\n  scalingStrategy: {strategy: accurate}", "",
		"echo $OFFBOARD_ITEM >> ledger; sleep 0.2"), redis)
	m := newMachine(t, map[string]string{"work.yaml": manifest})
	m.start()
	var items []string
	for i := range 20 {
		items = append(items, strconv.Itoa(i))
	}
	m.push("work", items...)
	m.eventually("some runs", func() (bool, string) { return len(m.lines("ledger")) >= 4, m.read("ledger") })
	redis.Stop()
	m.until("a word of the outage", func(info control.ScaledJobInfo) bool {
		ready := info.Object.Status.Conditions.Get("Ready")
		return ready.Status == "False" && strings.Contains(ready.Message, redis.Addr()) && info.Queue == nil
	})
	before := len(m.jobs())
	redis.Restart() // runners that have done their work wait until they can say so
	m.until("recovery and the end of the work", func(info control.ScaledJobInfo) bool {
		return info.Object.Status.Conditions.Get("Ready").Status == "True" && info.Queue != nil && *info.Queue == 0 &&
			info.Running+info.Pending == 0
	})
	if during := before; during > len(items) {
		t.Errorf("%d Jobs existed while nothing was known of %d items", during, len(items))
	}
	seen := map[string]int{}
	for _, item := range m.lines("ledger") {
		seen[item]++
	}
	for _, item := range items {
		if seen[item] != 1 {
			t.Errorf("item %s ran %d times", item, seen[item])
		}
	}
	if n := strings.Count(m.log.String(), "trigger redis #0 does not work"); n != 1 {
		t.Errorf("the outage was logged %d times:\n%s", n, m.log)
	}
}

func (m *machine) jobs() []control.JobInfo {
	m.t.Helper()
	jobs, err := m.client.Jobs(m.t.Context(), "", "")
	if err != nil {
		m.t.Fatal(err)
	}
	return jobs
}

// TestItems carries items that are large or odd through push, list, runner and command.
func TestItems(t *testing.T) {
	t.Parallel()
	m := newMachine(t, map[string]string{"work.yaml": scaledJob("  maxReplicaCount: 1", "", "sha256sum | cut -c1-64 >> ledger")})
	m.start()
	items := []string{
		strings.Repeat("0123456789", 1<<20), "\xff\xfe not UTF-8", "nul \x00 in the middle", "quotes \" ' and $(HOME) `id`",
		"two\nlines\n", " ", "{}",
	}
	m.push("work", items...)
	m.untilDone(len(items), 0)
	var want []string
	for _, item := range items {
		sum := sha256.Sum256([]byte(item))
		want = append(want, hex.EncodeToString(sum[:]))
	}
	if got := m.lines("ledger"); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("items arrived as\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if out := m.must("jobs"); strings.ContainsAny(out, "\x00\x1b") {
		t.Errorf("jobs prints control characters: %q", out)
	}
}

func TestListNames(t *testing.T) {
	t.Parallel()
	for i, name := range []string{"with space", `quo"te's`, "line\nbreak", "nul\x00", "ünï", "-dash", "{brace}"} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t, redistest.Options{})
			manifest := external(scaledJob("  maxReplicaCount: 1", "", "true"), redis)
			quoted := strconv.Quote(name)
			manifest = strings.Replace(manifest, "listName: work", "listName: "+strings.ReplaceAll(quoted, `\x00`, `\0`), 1)
			// What follows counts Jobs; what they run is of no matter, since a variable cannot hold NUL.
			manifest = strings.Replace(manifest, "[offboard, runner, --, sh, -c", `[sh, -c`, 1)
			m := newMachine(t, map[string]string{"work.yaml": manifest})
			m.start()
			m.push(name, "x")
			m.until("a Job", func(info control.ScaledJobInfo) bool {
				return info.Succeeded > 0 && info.Queue != nil && *info.Queue == 1
			})
		})
	}
}

func TestKeyOfTheWrongType(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.Options{})
	redis.Do("SET", "work", "a string")
	m := newMachine(t, map[string]string{"work.yaml": external(scaledJob("", "", "true"), redis)})
	m.start()
	m.until("a word of the wrong type", func(info control.ScaledJobInfo) bool {
		ready := info.Object.Status.Conditions.Get("Ready")
		return ready.Status == "False" && strings.Contains(ready.Message, "string") && strings.Contains(ready.Message, "work")
	})
	redis.Do("DEL", "work")
	m.until("recovery", func(info control.ScaledJobInfo) bool {
		return info.Object.Status.Conditions.Get("Ready").Status == "True"
	})
}

// TestRunners runs commands that do what they should not.
func TestRunners(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script      string
		deadline          int
		succeeds          bool
		log               string
		survivors         bool // the script writes the ids of processes that must be gone
		largest           int64
		notLongerThanSecs int
	}{
		{name: "ignores SIGTERM", script: `trap '' TERM; echo $$ > pids; while :; do sleep 1; done`, deadline: 2, survivors: true},
		{name: "forks and exits", script: `sleep 600 & echo $! > pids; echo parent is done`, succeeds: true, log: "parent is done", survivors: true},
		{name: "leaves its session", script: `setsid sleep 600 & sleep 0.3; pgrep -s 0 >/dev/null; echo $! > pids; exit 0`, succeeds: true, survivors: true},
		{name: "closes its output", script: `exec >&- 2>&-; sleep 0.2; echo x > /dev/null`, succeeds: true},
		{name: "writes a gigabyte", script: `head -c 1073741824 /dev/zero`, succeeds: true, largest: 64 << 20},
		{name: "fails", script: `echo sorry >&2; exit 7`, log: "sorry"},
		{name: "kills itself", script: `kill -9 $$`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			manifest := scaledJob("  maxReplicaCount: 1", "", tt.script)
			if tt.deadline > 0 {
				manifest = strings.Replace(manifest, "backoffLimit: 0",
					fmt.Sprintf("backoffLimit: 0\n    activeDeadlineSeconds: %d", tt.deadline), 1)
			}
			m := newMachine(t, map[string]string{"work.yaml": manifest})
			m.start()
			m.push("work", "x")
			if tt.succeeds {
				m.untilDone(1, 0)
			} else {
				m.untilDone(0, 1)
			}
			job := m.jobs()[0]
			if tt.log != "" {
				if log := m.must("logs", job.Job.Name); !strings.Contains(log, tt.log) {
					t.Errorf("log %q lacks %q", log, tt.log)
				}
			}
			if tt.survivors {
				for _, field := range m.lines("pids") {
					pid, err := strconv.Atoi(field)
					if err != nil {
						t.Fatal(err)
					}
					m.eventually("the end of a process that was left behind", func() (bool, string) {
						return !alive(pid), field + " runs"
					})
				}
			}
			if tt.largest > 0 {
				if size := treeSize(t, filepath.Join(m.data, "jobs")); size > tt.largest {
					t.Errorf("the Job takes %d MB on disk", size>>20)
				}
			}
			if tt.name == "fails" {
				if out := m.must("jobs"); !strings.Contains(out, "Failed") || !strings.Contains(out, " 7 ") {
					t.Errorf("jobs lacks state or exit code:\n%s", out)
				}
			}
		})
	}
}

func treeSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// TestServerWithSecrets reaches a server that wants TLS with client certificates and a password, which come from Secrets.
func TestServerWithSecrets(t *testing.T) {
	t.Parallel()
	const canary = "hunter2-canary"
	redis := redistest.Start(t, redistest.Options{Password: canary, TLS: true, ClientCertificate: true})
	indent := func(pem string) string { return "    " + strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n    ") }
	certs := redis.Certs()
	auth := fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: redis}
stringData:
  password: %s
  ca: |
%s
  cert: |
%s
  key: |
%s
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: redis}
spec:
  secretTargetRef:
    - {parameter: password, name: redis, key: password}
    - {parameter: ca, name: redis, key: ca}
    - {parameter: cert, name: redis, key: cert}
    - {parameter: key, name: redis, key: key}
`, canary, indent(certs.CA), indent(certs.ClientCert), indent(certs.ClientKey))
	manifest := external(scaledJob("  maxReplicaCount: 1", "", "true"), redis)
	manifest = strings.Replace(manifest, `listLength: "1"`, `listLength: "1", enableTLS: "true"`, 1)
	manifest = strings.Replace(manifest, "    - type: redis\n", "    - type: redis\n      authenticationRef: {name: redis}\n", 1)
	manifest = strings.Replace(manifest, "[offboard, runner, --, sh, -c", `[sh, -c`, 1)
	m := newMachine(t, map[string]string{"work.yaml": manifest, "auth.yaml": auth})
	m.start()
	m.push("work", "x")
	m.until("a Job", func(info control.ScaledJobInfo) bool { return info.Succeeded > 0 })

	m.write("auth.yaml", strings.Replace(auth, canary, "wrong", 1))
	m.until("a word of the wrong password", func(info control.ScaledJobInfo) bool {
		return info.Object.Status.Conditions.Get("Ready").Status == "False"
	})
	m.write("auth.yaml", auth)
	m.until("recovery", func(info control.ScaledJobInfo) bool {
		return info.Object.Status.Conditions.Get("Ready").Status == "True"
	})
	for what, text := range map[string]string{"log": m.log.String(), "get": m.must("get", "-o", "yaml")} {
		if strings.Contains(text, canary) {
			t.Errorf("the password is in the %s", what)
		}
	}
}

// TestMemoryRedis serves the queue from memory, where a server program is not installed.
func TestMemoryRedis(t *testing.T) {
	t.Parallel()
	// It does not wait for the next poll, which is hours away.
	m := newMachine(t, map[string]string{"work.yaml": scaledJob("  pollingInterval: 10000", "", "echo x >> ledger")})
	m.start("--memory-redis")
	if !strings.Contains(m.log.String(), "memory") {
		t.Errorf("no warning that the queue lives in memory:\n%s", m.log)
	}
	m.push("work", "1", "2", "3")
	m.untilDone(3, 0)
}
