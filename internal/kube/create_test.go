package kube

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// aNamedJob is a plain Job whose name is chosen by the controller.
func aNamedJob(owner types.NamespacedName, name string) *batchv1.Job {
	job := aPlainJob(owner)
	job.GenerateName, job.Name = "", name
	return job
}

func jobsOn(c client.Client) *jobs {
	return &jobs{store: newStore(), writer: c, reader: c, may: always}
}

// TestNamedCreate asks for a Job of one name again and again: from the same process, from one that knows nothing of it,
// and for another ScaledJob of that name.
func TestNamedCreate(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	made, err := j.Create(t.Context(), aNamedJob(owner, "one"), nil)
	if err != nil || made.Name != "one" {
		t.Fatalf("got %v, %v", made, err)
	}
	for name, j := range map[string]*jobs{"the same": j, "another": jobsOn(c)} {
		again, err := j.Create(t.Context(), aNamedJob(owner, "one"), nil)
		if err != nil || again.UID != made.UID {
			t.Errorf("%s process: got %v, %v", name, again, err)
		}
		if listed, err := j.List(t.Context(), owner); err != nil || len(listed) != 1 {
			t.Errorf("%s process: %d Jobs are listed, %v", name, len(listed), err)
		}
		foreign := aNamedJob(owner, "one")
		foreign.OwnerReferences[0].UID = "another"
		if _, err := j.Create(t.Context(), foreign, nil); !apierrors.IsAlreadyExists(err) {
			t.Errorf("%s process: the Job of another ScaledJob: %v", name, err)
		}
	}
	if j := jobsOn(c); true {
		foreign := aNamedJob(owner, "one")
		foreign.OwnerReferences[0].UID = "another"
		if _, err := j.Create(t.Context(), foreign, nil); !apierrors.IsAlreadyExists(err) {
			t.Errorf("unknown, the Job of another ScaledJob: %v", err)
		}
		if listed, err := j.List(t.Context(), owner); err != nil || len(listed) != 0 {
			t.Errorf("it is listed: %v, %v", listed, err)
		}
	}
	// Once it is gone, and that is known, there may be another one.
	j.store.hide(owner, trimJob(made))
	background := client.PropagationPolicy(metav1.DeletePropagationBackground)
	if err := c.Delete(t.Context(), made.DeepCopy(), background); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is another Job of that name", func() bool {
		another, err := j.Create(t.Context(), aNamedJob(owner, "one"), nil)
		if err == nil && another.UID == made.UID {
			j.store.hide(owner, trimJob(another))
			return false
		}
		return err == nil
	})
}

// TestNamedCreateOfOneThatIsGone has a Job deleted before the watch shows that: the answer is not that it exists.
func TestNamedCreateOfOneThatIsGone(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	gone := aNamedJob(owner, "one")
	gone.UID, gone.ResourceVersion = "gone", "1"
	j.store.show(owner, trimJob(gone))
	if got, err := j.Create(t.Context(), aNamedJob(owner, "one"), nil); err == nil {
		t.Errorf("got %v", got)
	}
	j.store.hide(owner, trimJob(gone))
	if _, err := j.Create(t.Context(), aNamedJob(owner, "one"), nil); err != nil {
		t.Error(err)
	}
}

// TestLostAnswersOfNamedJobs cuts the connections to the API server again and again while each Job is asked for until
// it is there. There is exactly one of each name in the end, and the store knows it although no watch has shown any.
func TestLostAnswersOfNamedJobs(t *testing.T) {
	plane := controlplane.ForTest(t, controlplane.Options{})
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	server, err := url.Parse(plane.Config().Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := servertest.StartProxy(t, server.Host)
	throughProxy := plane.Config()
	throughProxy.Host = "https://" + proxy.Addr()
	flaky, direct := aClient(t, throughProxy), aClient(t, plane.Config())
	j := jobsOn(flaky)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	const creators, each = 8, 15
	var mu sync.Mutex
	var failed atomic.Int32
	made := map[string]types.UID{}
	var creating, cutting sync.WaitGroup
	for creator := range creators {
		creating.Go(func() {
			for i := range each {
				name := fmt.Sprintf("job-%d-%d", creator, i)
				job, err := j.Create(ctx, aNamedJob(owner, name), nil)
				for ; err != nil && ctx.Err() == nil; job, err = j.Create(ctx, aNamedJob(owner, name), nil) {
					failed.Add(1)
				}
				if err != nil {
					t.Errorf("Job %s: %v", name, err)
					continue
				}
				mu.Lock()
				made[name] = job.UID
				mu.Unlock()
			}
		})
	}
	cut, stopCutting := context.WithCancel(ctx)
	cutting.Go(func() {
		random := rand.New(rand.NewPCG(3, 4))
		for before := 0; cut.Err() == nil; {
			for range 10 {
				proxy.Cut()
				wait(cut, time.Duration(random.IntN(60))*time.Millisecond)
			}
			// On a busy machine, connections may never live long enough for an answer.
			now := before
			for now == before && wait(cut, time.Millisecond) {
				mu.Lock()
				now = len(made)
				mu.Unlock()
			}
			before = now
		}
	})
	creating.Wait()
	stopCutting()
	cutting.Wait()
	var exist batchv1.JobList
	if err := direct.List(t.Context(), &exist, client.InNamespace(owner.Namespace)); err != nil {
		t.Fatal(err)
	}
	listed, err := j.List(t.Context(), owner)
	if err != nil || len(listed) != creators*each || len(exist.Items) != creators*each {
		t.Errorf("%d Jobs exist, %d are listed, %v", len(exist.Items), len(listed), err)
	}
	for _, job := range exist.Items {
		if made[job.Name] != job.UID {
			t.Errorf("Job %s is not the one that Create returned", job.Name)
		}
	}
	t.Logf("%d Jobs, %d calls failed", len(exist.Items), failed.Load())
}

// TestRefusedAfterALostAnswer has a Job refused that may exist because of an earlier request whose answer was lost.
func TestRefusedAfterALostAnswer(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	j.store.naming(owner, "one")
	j.store.unknown(owner, "one", time.Now().Add(time.Hour)) // that there is none will not be certain while this test looks
	refused := aNamedJob(owner, "one")
	refused.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	if _, err := j.Create(t.Context(), refused, nil); !apierrors.IsInvalid(err) {
		t.Fatalf("got %v", err)
	}
	if list, err := j.List(t.Context(), owner); err == nil {
		t.Errorf("it is taken for certain that there is no such Job: %v", list)
	}
	if _, err := j.Create(t.Context(), aNamedJob(owner, "one"), nil); err != nil {
		t.Errorf("with a repaired template: %v", err)
	}
	if list, err := j.List(t.Context(), owner); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
}

// slow is a connection whose requests to create something wait until the channel is closed.
type slow struct {
	http.RoundTripper
	until   chan struct{}
	waiting chan struct{}
}

func (s slow) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodPost && strings.HasSuffix(request.URL.Path, "/jobs") {
		s.waiting <- struct{}{}
		<-s.until
	}
	return s.RoundTripper.RoundTrip(request)
}

// TestListWhileCreating lists the Jobs while one is being created: it must be known afterwards.
func TestListWhileCreating(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	config := plane.Config()
	until, waiting := make(chan struct{}), make(chan struct{}, 1)
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return slow{rt, until, waiting} })
	j := jobsOn(aClient(t, config))
	created := make(chan error, 1)
	go func() {
		_, err := j.Create(t.Context(), aNamedJob(owner, "one"), nil)
		created <- err
	}()
	<-waiting
	if list, err := j.List(t.Context(), owner); err == nil {
		t.Errorf("it is taken for certain that there is no Job: %v", list)
	}
	if _, err := j.Create(t.Context(), aNamedJob(owner, "one"), nil); err == nil {
		t.Error("it is created twice at once")
	}
	close(until)
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	if list, err := j.List(t.Context(), owner); err != nil || len(list) != 1 {
		t.Errorf("afterwards: %v, %v", list, err)
	}
}

// TestStoreOfNamedJobs asks for Jobs of a few names again and again, while answers get lost, requests arrive late, and
// the watch shows what has come of them. Whatever a Create has returned is in every list until its end was shown, and
// in the end the store is as the server.
func TestStoreOfNamedJobs(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		store, server, now := newStore(), &server{jobs: map[string]*batchv1.Job{}}, time.Now()
		asked := map[string]naming{}   // requests under way, with what was known before
		late := map[string]time.Time{} // requests that may still arrive although their answers are lost
		returned := map[types.UID]string{}
		serial := 0
		carryOut := func(name string) *batchv1.Job {
			if server.jobs[name] == nil {
				serial++
				job := aJob(name, 0)
				job.UID = types.UID(fmt.Sprint(name, serial))
				server.write(job)
			}
			return server.jobs[name]
		}
		ask := func(name string) {
			if job := server.jobs[name]; job != nil {
				store.found(theOwner, job, now)
			} else {
				store.absent(theOwner, name, now)
			}
		}
		show := func() {
			shown := server.pending[0]
			server.pending = server.pending[1:]
			if shown.gone {
				store.hide(theOwner, shown.job)
				delete(returned, shown.job.UID)
			} else {
				store.show(theOwner, trimJob(shown.job))
			}
		}
		answer := func(name string, how int) {
			before := asked[name]
			delete(asked, name)
			switch how {
			case 0: // the server has carried it out
				job := carryOut(name)
				store.created(theOwner, job, now)
				returned[job.UID] = name
			case 1: // the answer is lost
				store.unknown(theOwner, name, now)
				late[name] = now
			case 2: // it is refused
				if before.again {
					store.unknown(theOwner, name, before.lost)
				} else {
					store.notCreated(theOwner, name)
				}
			}
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				if _, under := asked[name]; under {
					break
				}
				if n := store.naming(theOwner, name); !n.known && !n.busy {
					asked[name] = n
				} else if n.known {
					ask(name)
				}
			case 1:
				if _, under := asked[name]; under {
					answer(name, rapid.IntRange(0, 2).Draw(t, "answer"))
				}
			case 2: // a request arrives whose answer is lost already
				if _, pending := late[name]; pending {
					carryOut(name)
					delete(late, name)
				}
			case 3: // the watch shows something
				if len(server.pending) > 0 {
					show()
				}
			case 4: // a Job ends, whose creation is over
				if _, pending := late[name]; server.jobs[name] != nil && !pending {
					server.delete(name)
				}
			case 5: // time passes, and the server is asked about what is doubtful
				now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, settledWithin, showWithin}).Draw(t, "passes"))
				for name, since := range late {
					if now.Sub(since) >= settledWithin {
						delete(late, name)
					}
				}
				_, doubtful := store.list(theOwner, now)
				for _, name := range doubtful {
					ask(name)
				}
			}
			listed, doubtful := store.list(theOwner, now)
			known := map[types.UID]bool{}
			for _, job := range listed {
				known[job.UID] = true
			}
			for uid, name := range returned {
				if job := server.jobs[name]; job != nil && job.UID == uid && !known[uid] && !slices.Contains(doubtful, name) {
					t.Fatalf("%s was created and is neither listed nor doubtful", name)
				}
			}
			for name, job := range server.jobs {
				if _, under := asked[name]; !under && !known[job.UID] && !slices.Contains(doubtful, name) &&
					!slices.ContainsFunc(server.pending, func(w watched) bool { return w.job.Name == name }) {
					t.Fatalf("%s exists and is neither listed nor doubtful", name)
				}
			}
		}
		for name := range maps.Clone(asked) {
			answer(name, 0)
		}
		for len(server.pending) > 0 {
			show()
		}
		now = now.Add(showWithin)
		_, doubtful := store.list(theOwner, now)
		for _, name := range doubtful {
			ask(name)
		}
		listed, doubtful := store.list(theOwner, now)
		if len(listed) != len(server.jobs) || len(doubtful) > 0 {
			t.Fatalf("in the end %d are listed and %v doubtful, want %d", len(listed), doubtful, len(server.jobs))
		}
	})
}
