package kube

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/limits/ration"
)

// TestTable writes the table and reads it, and reads what nobody has written.
func TestTable(t *testing.T) {
	t.Parallel()
	table := ration.Table{Made: "uid", Version: "uid/7", Removals: 3, Entries: map[string]ration.Entry{
		"a": {Replica: "one", Whole: true},
		"b": {
			Replica: "two", Ceilings: map[string]ration.Ceiling{ration.Jobs: {Most: 4, Turn: 2}, "ns": {Most: 1}},
			Wants: map[string][]limits.Want{"ns": {{Weight: 1.5, Jobs: 4, Waiting: 1}}},
		},
	}}
	data, err := writeTable(table)
	if err != nil {
		t.Fatal(err)
	}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{UID: "uid", ResourceVersion: "7"}, Data: data}
	if got, err := readTable(object); err != nil || !equality.Semantic.DeepEqual(got, table) {
		t.Errorf("it is read as %+v, %v, want %+v", got, err, table)
	}
	for _, bad := range []struct {
		data map[string]string
		want string
	}{
		{nil, "no key removals"},
		{map[string]string{"removals": "many"}, "key removals"},
		{map[string]string{"removals": "0", "a": "{"}, "key a"},
		{map[string]string{"removals": "0", "a": `{"ceilings":{"/jobs":{"most":-1}}}`}, "must not be negative"},
		{map[string]string{"removals": "0", "a": `{"wants":{"":[{"weight":0,"jobs":1}]}}`}, "must be a weight above 0"},
	} {
		if _, err := readTable(&corev1.ConfigMap{Data: bad.data}); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%v gives the error %v, want %q", bad.data, err, bad.want)
		}
	}
}
