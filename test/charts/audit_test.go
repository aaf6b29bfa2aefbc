package charts

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// audit is the API server's record of what service accounts of some namespaces have asked for.
type audit struct{ policy, log string }

// newAudit writes the policy for the API server. Nobody else's requests are recorded.
func newAudit(t *testing.T, namespaces ...string) audit {
	t.Helper()
	dir := t.TempDir()
	a := audit{policy: filepath.Join(dir, "policy.yaml"), log: filepath.Join(dir, "audit.log")}
	groups := make([]string, len(namespaces))
	for i, namespace := range namespaces {
		groups[i] = "system:serviceaccounts:" + namespace
	}
	policy := fmt.Sprintf(`apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - {level: Metadata, userGroups: [%s], omitStages: [RequestReceived]}
  - {level: None}
`, strings.Join(groups, ", "))
	if err := os.WriteFile(a.policy, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// request is one line of the record.
type request struct {
	Verb, RequestURI string
	User             struct{ Username string }
	ObjectRef        struct{ Resource, Subresource, APIGroup, Namespace, Name string }
	ResponseStatus   struct{ Code int }
}

// right is the request as a rule names it: "verb resource.group" or "verb resource/subresource.group".
func (r request) right() string {
	return right(r.Verb, r.ObjectRef.APIGroup, strings.TrimSuffix(r.ObjectRef.Resource+"/"+r.ObjectRef.Subresource, "/"))
}

func right(verb, group, resource string) string {
	return strings.TrimSuffix(verb+" "+resource+"."+group, ".")
}

// of returns the requests of a service account for objects.
func (a audit) of(t *testing.T, account string) []request {
	t.Helper()
	file, err := os.Open(a.log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []request
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one request
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		if one.User.Username == account && one.ObjectRef.Resource != "" {
			all = append(all, one)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// usage is which rights a release grants, and which of them were used.
type usage struct{ granted, used map[string]bool }

// spare are rights that no request of the operator shows.
var spare = map[string]string{
	"update scaledjobs/finalizers.keda.sh": "the admission plugin OwnerReferencesPermissionEnforcement asks for it",
	"get jobs.batch":                       "whether a Job was created, when the answer was lost",
	// Servers that cannot stream a list in a watch are asked for it.
	"list scaledjobs.keda.sh":                    "older servers",
	"list triggerauthentications.keda.sh":        "older servers",
	"list clustertriggerauthentications.keda.sh": "older servers",
	"list pods":   "older servers",
	"list events": "older servers",
}

// add takes note of a release: nothing was refused to its operator.
func (u *usage) add(w world, a audit, release, account string) {
	w.Helper()
	if u.granted == nil {
		u.granted, u.used = map[string]bool{}, map[string]bool{}
	}
	for _, one := range a.of(w.T, account) {
		u.used[one.right()] = true
		if one.ResponseStatus.Code == http.StatusForbidden || one.ResponseStatus.Code == http.StatusUnauthorized {
			w.Errorf("the operator was refused: %s %s: %d", one.Verb, one.RequestURI, one.ResponseStatus.Code)
		}
	}
	for _, rule := range rulesOf(w, release) {
		for _, verb := range rule.Verbs {
			for _, resource := range rule.Resources {
				u.granted[right(verb, rule.APIGroups[0], resource)] = true
			}
		}
	}
}

// rulesOf returns what the Roles and ClusterRoles of a release grant.
func rulesOf(w world, release string) []rbacv1.PolicyRule {
	w.Helper()
	selector := metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + release}
	roles, err := w.Client().RbacV1().Roles("").List(w.Context(), selector)
	if err != nil {
		w.Fatal(err)
	}
	clusterRoles, err := w.Client().RbacV1().ClusterRoles().List(w.Context(), selector)
	if err != nil {
		w.Fatal(err)
	}
	var rules []rbacv1.PolicyRule
	for i := range roles.Items {
		rules = append(rules, roles.Items[i].Rules...)
	}
	for i := range clusterRoles.Items {
		rules = append(rules, clusterRoles.Items[i].Rules...)
	}
	return rules
}

// check wants every right to have been of use.
func (u *usage) check(t *testing.T) {
	t.Helper()
	for _, granted := range slices.Sorted(maps.Keys(u.granted)) {
		if !u.used[granted] && spare[granted] == "" {
			t.Errorf("the chart grants what the operator did not need: %s", granted)
		}
	}
}
