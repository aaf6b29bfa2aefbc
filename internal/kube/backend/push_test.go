package backend

import (
	"slices"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/redistest"
)

const (
	secret = `{apiVersion: v1, kind: Secret, metadata: {name: redis}, stringData: {password: secret}}
---
`
	password = `{name: PASSWORD, valueFrom: {secretKeyRef: {name: redis, key: password}}}`
)

// items returns what a list holds.
func items(t *testing.T, server *redistest.Server, list string) []string {
	t.Helper()
	reply := server.Do("LRANGE", list, "0", "-1")
	values, err := reply.AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func push(t *testing.T, b *Backend, queue control.Queue, items ...string) (int64, error) {
	t.Helper()
	bytes := make([][]byte, len(items))
	for i, item := range items {
		bytes[i] = []byte(item)
	}
	result, err := b.Push(t.Context(), queue, bytes)
	return result.Length, err
}

// TestPush finds the server and its password as the operator does: in the environment of the Job, and in a
// TriggerAuthentication.
func TestPush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Password: "secret"})
	c := cluster(t)
	namespace := c.Namespace(t)
	apply(t, c, namespace, secret+scaledJob("other", "else", server.Addr(), password)+
		scaledJob("work", "list", server.Addr(), password)+`
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: redis}
spec: {secretTargetRef: [{parameter: password, name: redis, key: password}]}
---
`+strings.Replace(scaledJob("auth", "by auth", server.Addr()), "passwordFromEnv: PASSWORD}", "}, authenticationRef: {name: redis}", 1))
	b := ask(t, c.Config(), Need{})
	list := control.Queue{Name: "list", Namespace: namespace}
	for i, batch := range [][]string{{"a", "\x00\xff\n"}, {"c"}, {}} {
		if n, err := push(t, b, list, batch...); err != nil || n != []int64{2, 3, 0}[i] {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	if got := items(t, server, "list"); !slices.Equal(got, []string{"a", "\x00\xff\n", "c"}) {
		t.Errorf("got %q", got)
	}
	if n, err := push(t, b, control.Queue{Name: "by auth", Namespace: namespace, ScaledJob: "auth"}, "a"); err != nil || n != 1 {
		t.Errorf("got %d, %v", n, err)
	}
	_, err := push(t, b, control.Queue{Name: "lst", Namespace: namespace}, "a")
	wantError(t, err, control.NotFound, `no ScaledJob reads the queue "lst"; there is "by auth", "else", "list"`)
	_, err = push(t, b, control.Queue{Name: "list", Namespace: namespace, ScaledJob: "none"}, "a")
	wantError(t, err, control.NotFound, `ScaledJob "none" does not exist in namespace `+namespace)
	_, err = push(t, b, control.Queue{Name: "list", Namespace: namespace, ScaledJob: "other"}, "a")
	wantError(t, err, control.NotFound, `no ScaledJob reads the queue "list"; there is "else"`)
	server.Stop()
	_, err = push(t, ask(t, c.Config(), Need{}), list, "a")
	wantError(t, err, control.Unavailable, "redis at "+server.Addr()+" is not reachable")
}

// TestPushToOneOfSeveral has ScaledJobs whose queues have the same name.
func TestPushToOneOfSeveral(t *testing.T) {
	t.Parallel()
	one, two := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
	c := cluster(t)
	namespace := c.Namespace(t)
	open := func(name, address string) string {
		return strings.Replace(scaledJob(name, "list", address), ", passwordFromEnv: PASSWORD", "", 1)
	}
	apply(t, c, namespace, open("a", one.Addr())+open("b", one.Addr()))
	queue := control.Queue{Name: "list", Namespace: namespace}
	if n, err := push(t, ask(t, c.Config(), Need{}), queue, "x"); err != nil || n != 1 {
		t.Errorf("on one server: got %d, %v", n, err)
	}
	apply(t, c, namespace, open("c", two.Addr()))
	b := ask(t, c.Config(), Need{})
	_, err := push(t, b, queue, "x")
	wantError(t, err, control.BadRequest, `ScaledJobs a and c read queues of the name "list" on different servers`, "--scaledjob")
	queue.ScaledJob = "c"
	if n, err := push(t, b, queue, "x"); err != nil || n != 1 || len(items(t, two, "list")) != 1 {
		t.Errorf("the one that is meant: got %d, %v", n, err)
	}
}

// TestPushWithoutTheSecret is a user who may read ScaledJobs and no Secrets.
func TestPushWithoutTheSecret(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	namespace := c.Namespace(t)
	apply(t, c, namespace, secret+scaledJob("work", "list", "127.0.0.1:1", password)+reader(namespace))
	config, err := c.UserConfig("reader-" + namespace)
	if err != nil {
		t.Fatal(err)
	}
	b := ask(t, config, Need{Events: true})
	_, err = push(t, b, control.Queue{Name: "list", Namespace: namespace}, "x")
	wantError(t, err, control.NotFound, "ScaledJob work is not ready: ", `cannot get resource "secrets"`)
	// What such a user may do works, events or not.
	infos, err := b.ScaledJobs(t.Context(), namespace)
	if err != nil || len(infos) != 1 {
		t.Errorf("got %v, %v", infos, err)
	}
}

// reader is a role for a user who may look at ScaledJobs and what becomes of them.
func reader(namespace string) string {
	return `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules:
  - {apiGroups: [keda.sh], resources: [scaledjobs], verbs: [get, list]}
  - {apiGroups: [batch], resources: [jobs], verbs: [get, list]}
  - {apiGroups: [""], resources: [pods, pods/log], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: User, name: reader-` + namespace + `, apiGroup: rbac.authorization.k8s.io}]
---
`
}
