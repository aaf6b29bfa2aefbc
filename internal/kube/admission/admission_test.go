package admission_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth"
	"github.com/offboard-dev/offboard/internal/kube/admission"
	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

const good = `
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: usertask, namespace: default}
spec:
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers: [{name: runner, image: example.com/runner}]
  triggers:
    - type: redis
      metadata: {address: "localhost:6379", listName: tasks}
`

// bad has three errors and a warning that a CRD cannot know.
var bad = strings.NewReplacer("type: redis", "type: reddis", "restartPolicy: Never", "restartPolicy: Always",
	"spec:\n  job", "spec:\n  envSourceContainerName: other\n  rolloutStrategy: gradual\n  job").Replace(good)

var badErrors = []string{
	`spec.envSourceContainerName: no container is named "other": want one of runner`,
	`spec.jobTargetRef.template.spec.restartPolicy: got "Always", want Never or OnFailure: a Job runs to its end`,
	`spec.triggers[0].type: unknown trigger type "reddis"`,
}

var kinds = []string{v1alpha1.KindScaledJob, v1alpha1.KindTriggerAuthentication,
	v1alpha1.KindClusterTriggerAuthentication}

// asJSON is what kubectl makes of a manifest.
func asJSON(t testing.TB, manifest string) []byte {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// request asks about an object as an API server would; old is nil unless it is updated.
func request(t testing.TB, operation admissionv1.Operation, object, old []byte) *admissionv1.AdmissionRequest {
	t.Helper()
	var header metav1.PartialObjectMetadata
	if err := json.Unmarshal(object, &header); err != nil {
		t.Fatal(err)
	}
	gvk := header.GroupVersionKind()
	return &admissionv1.AdmissionRequest{
		UID:       "1",
		Kind:      metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind},
		Name:      header.Name,
		Namespace: header.Namespace,
		Operation: operation,
		Object:    runtime.RawExtension{Raw: object},
		OldObject: runtime.RawExtension{Raw: old},
	}
}

// ask returns the answer to a request of a handler that looks at all objects.
func ask(t testing.TB, request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	return askWith(t, nil, request)
}

// askWith returns the answer of a handler that looks at the objects that a selector takes.
func askWith(
	t testing.TB, selector labels.Selector, request *admissionv1.AdmissionRequest,
) *admissionv1.AdmissionResponse {
	t.Helper()
	review := &admissionv1.AdmissionReview{Request: request}
	review.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	response := post(t, selector, body).Response
	if response.UID != request.UID {
		t.Fatalf("the answer is to request %q", response.UID)
	}
	return response
}

// post returns the answer to a body, which must be an AdmissionReview.
func post(t testing.TB, selector labels.Selector, body []byte) *admissionv1.AdmissionReview {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, admission.Path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	admission.New(all.Types(), selector).ServeHTTP(w, r)
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &review); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	if review.Response == nil {
		t.Fatalf("got no AdmissionReview: %s", w.Body)
	}
	return &review
}

// said returns what an answer says is wrong, one line a problem, sorted.
func said(response *admissionv1.AdmissionResponse) (errs, warnings []string) {
	if response.Result != nil && response.Result.Details != nil {
		for _, cause := range response.Result.Details.Causes {
			errs = append(errs, cause.Field+": "+cause.Message)
		}
	}
	return slices.Sorted(slices.Values(errs)), slices.Sorted(slices.Values(response.Warnings))
}

// TestSameAsValidate asks the webhook about every object in the manifest reader's own test files.
func TestSameAsValidate(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../manifest/testdata/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("files = %v, %v", files, err)
	}
	files = append(files, "testdata/pods.yaml")
	asked, refused := 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, document := range strings.Split(string(text), "\n---\n") {
			data, err := yaml.YAMLToJSONStrict([]byte(document))
			var header metav1.PartialObjectMetadata
			if err != nil || json.Unmarshal(data, &header) != nil || header.GroupVersionKind().Group != v1alpha1.Group ||
				!slices.Contains(kinds, header.Kind) {
				continue // kubectl would not send it, or not to the webhook
			}
			var wantErrors, wantWarnings []string
			for _, problem := range manifest.ValidateForCluster(manifest.Parse("file", []byte(document)), all.Types()) {
				switch {
				case strings.Contains(problem.Message, "is not in these files"):
				case problem.Severity == manifest.Error && problem.Message != auth.NotSupported:
					wantErrors = append(wantErrors, problem.Text())
				default:
					wantWarnings = append(wantWarnings, problem.Text())
				}
			}
			asked++
			response := ask(t, request(t, admissionv1.Create, stored(t, data), nil))
			errs, warnings := said(response)
			slices.Sort(wantErrors)
			slices.Sort(wantWarnings)
			if !slices.Equal(errs, wantErrors) || !slices.Equal(warnings, wantWarnings) {
				t.Errorf("%s, document %d: got\n%s\nwant\n%s", file, i+1, strings.Join(slices.Concat(errs, warnings), "\n"),
					strings.Join(slices.Concat(wantErrors, wantWarnings), "\n"))
			}
			if response.Allowed != (len(wantErrors) == 0) {
				t.Errorf("%s, document %d: allowed = %t", file, i+1, response.Allowed)
			}
			if !response.Allowed {
				refused++
			}
		}
	}
	t.Logf("%d objects, %d refused", asked, refused)
	if asked < 10 || refused < 5 {
		t.Errorf("asked about %d objects, %d of them bad", asked, refused)
	}
}

// stored adds what an API server adds to an object, and what a version that is newer than this one might.
func stored(t testing.TB, data []byte) []byte {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	object["status"] = map[string]any{"future": true, "conditions": "of another kind"}
	if metadata, ok := object["metadata"].(map[string]any); ok {
		maps.Copy(metadata, map[string]any{"uid": "u", "generation": 1, "creationTimestamp": "2030-01-01T00:00:00Z",
			"future": true, "managedFields": []any{map[string]any{"manager": "kubectl", "fieldsV1": map[string]any{
				`k:{"name":"runner"}`: map[string]any{".": map[string]any{}}}}}})
	}
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	response := ask(t, request(t, admissionv1.Create, asJSON(t, bad), nil))
	if response.Allowed {
		t.Fatal("allowed")
	}
	result := response.Result
	if result.Reason != metav1.StatusReasonInvalid || result.Code != http.StatusUnprocessableEntity ||
		result.Status != metav1.StatusFailure || result.Details.Name != "usertask" || result.Details.Kind != "ScaledJob" ||
		result.Details.Group != "keda.sh" {
		t.Errorf("result = %+v", result)
	}
	errs, warnings := said(response)
	for _, want := range badErrors {
		if !strings.Contains(result.Message, want) {
			t.Errorf("message is without %q: %s", want, result.Message)
		}
		if !slices.ContainsFunc(errs, func(got string) bool { return strings.HasPrefix(got, want) }) {
			t.Errorf("causes are without %q: %q", want, errs)
		}
	}
	if len(errs) != len(badErrors) || !strings.HasPrefix(result.Message, "3 errors:\n") {
		t.Errorf("message = %s; causes = %q", result.Message, errs)
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "spec.rolloutStrategy: rolloutStrategy is deprecated") {
		t.Errorf("warnings = %q", warnings)
	}

	one := ask(t, request(t, admissionv1.Create, asJSON(t, strings.ReplaceAll(good, "Never", "Always")), nil))
	if one.Result.Message != badErrors[1] {
		t.Errorf("the message of one error is %q", one.Result.Message)
	}
}

// TestManyErrors lists no more than a bound.
func TestManyErrors(t *testing.T) {
	t.Parallel()
	manifest := strings.Replace(good, "  triggers:\n", "  triggers:\n"+
		strings.Repeat("    - {type: nonsense, useCachedMetrics: true, metadata: {}}\n", 250), 1)
	response := ask(t, request(t, admissionv1.Create, asJSON(t, manifest), nil))
	errs, warnings := said(response)
	if len(errs) != 101 || len(warnings) != 100 || !slices.Contains(errs, "object: 150 more problems in this object are not listed") {
		t.Errorf("%d errors, %d warnings: %q", len(errs), len(warnings), errs)
	}
}

func TestWhatIsLookedAt(t *testing.T) {
	t.Parallel()
	edit := func(manifest, old, new string) string {
		if !strings.Contains(manifest, old) {
			t.Fatalf("%q is not in the manifest", old)
		}
		return strings.Replace(manifest, old, new, 1)
	}
	finalizer := "namespace: default, finalizers: [finalizer.keda.sh]}"
	deleting := "namespace: default, deletionTimestamp: \"2030-01-01T00:00:00Z\", finalizers: [a/b]}"
	for name, test := range map[string]struct {
		operation   admissionv1.Operation
		object, old string
		change      func(*admissionv1.AdmissionRequest)
		allowed     bool
		warnings    int
	}{
		"created":          {operation: admissionv1.Create, object: good, allowed: true},
		"created bad":      {operation: admissionv1.Create, object: bad, warnings: 1},
		"broken by update": {operation: admissionv1.Update, object: bad, old: good, warnings: 1},
		"repaired":         {operation: admissionv1.Update, object: good, old: bad, allowed: true},
		"changed, still bad": {operation: admissionv1.Update, object: edit(bad, "tasks", "others"), old: bad,
			warnings: 1},
		"finalizer taken from bad": {operation: admissionv1.Update, object: bad,
			old: edit(bad, "namespace: default}", finalizer), allowed: true},
		"bad unchanged": {operation: admissionv1.Update, object: bad, old: bad, allowed: true},
		"bad annotation": {operation: admissionv1.Update, old: bad, allowed: true, warnings: 1, object: edit(bad,
			"default}", "default, annotations: {autoscaling.keda.sh/paused: maybe}}")},
		"same bad annotation": {operation: admissionv1.Update, allowed: true,
			old:    edit(bad, "default}", "default, annotations: {autoscaling.keda.sh/paused: maybe}}"),
			object: edit(bad, "default}", "default, labels: {a: b}, annotations: {autoscaling.keda.sh/paused: maybe}}")},
		"being deleted": {operation: admissionv1.Update, object: edit(bad, "namespace: default}", deleting), old: good,
			allowed: true},
		"deleted": {operation: admissionv1.Delete, object: bad, allowed: true},
		"status": {operation: admissionv1.Update, object: bad, old: good, allowed: true,
			change: func(r *admissionv1.AdmissionRequest) { r.SubResource = "status" }},
		"other group": {operation: admissionv1.Create, object: edit(bad, "keda.sh/v1alpha1", "example.com/v1alpha1"),
			allowed: true},
		"other version": {operation: admissionv1.Create, object: edit(bad, "v1alpha1", "v2"), allowed: true},
		"other kind":    {operation: admissionv1.Create, object: edit(bad, "ScaledJob", "ScaledObject"), allowed: true},
		"dry run": {operation: admissionv1.Create, object: bad, warnings: 1,
			change: func(r *admissionv1.AdmissionRequest) { r.DryRun = new(bool); *r.DryRun = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var old []byte
			if test.old != "" {
				old = asJSON(t, test.old)
			}
			r := request(t, test.operation, asJSON(t, test.object), old)
			if test.change != nil {
				test.change(r)
			}
			response := ask(t, r)
			if response.Allowed != test.allowed || len(response.Warnings) != test.warnings {
				t.Errorf("allowed = %t, want %t; warnings = %q, want %d", response.Allowed, test.allowed, response.Warnings,
					test.warnings)
			}
		})
	}
}

// foreign is a ScaledJob of KEDA's, with a trigger that nobody here knows.
const foreign = `
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: stream, namespace: default}
spec:
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers: [{name: runner, image: example.com/runner}]
  triggers:
    - type: predictkube
      metadata: {prometheusAddress: "http://prometheus:9090", query: t, threshold: "5"}
`

// vault is a TriggerAuthentication with a source that nobody here knows, which is worth a warning.
const vault = `
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: vault, namespace: default}
spec: {azureKeyVault: {vaultUri: "https://vault", secrets: [{parameter: p, name: s}]}}
`

// TestSelector leaves what the operator does not look after to whoever does.
func TestSelector(t *testing.T) {
	t.Parallel()
	labelled := func(manifest, labels string) string {
		changed := strings.Replace(manifest, "namespace: default}", "namespace: default, labels: {"+labels+"}}", 1)
		if changed == manifest {
			t.Fatalf("the manifest has no labels: %s", manifest)
		}
		return changed
	}
	edited := func(manifest string) string { return strings.Replace(manifest, "query: t", "query: u", 1) }
	const ours, theirs = "jobs: offboard", "jobs: keda"
	for name, test := range map[string]struct {
		selector    string
		object, old string
		allowed     bool
		warnings    int
	}{
		"ours": {object: labelled(foreign, ours)}, "theirs": {object: labelled(foreign, theirs), allowed: true},
		"without a label":      {object: foreign, allowed: true},
		"their authentication": {object: labelled(vault, theirs), allowed: true},
		"our authentication":   {object: labelled(vault, ours), allowed: true, warnings: 1},
		"theirs edited":        {object: edited(labelled(foreign, theirs)), old: labelled(foreign, theirs), allowed: true},
		"ours edited":          {object: edited(labelled(foreign, ours)), old: labelled(foreign, ours)},
		"ours unchanged": {
			object: labelled(foreign, ours+", a: b"), old: labelled(foreign, ours), allowed: true,
		},
		"given to them, and edited": {object: edited(labelled(foreign, theirs)), old: labelled(foreign, ours), allowed: true},
		"taken from them":           {object: labelled(foreign, ours), old: labelled(foreign, theirs)},
		"all but theirs: theirs":    {selector: "jobs!=keda", object: labelled(foreign, theirs), allowed: true},
		"all but theirs: no label":  {selector: "jobs!=keda", object: foreign},
		"a good one is taken": {
			object: labelled(good, ours), old: labelled(good, theirs), allowed: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			selector, err := labels.Parse(cmp.Or(test.selector, "jobs=offboard"))
			if err != nil {
				t.Fatal(err)
			}
			operation, old := admissionv1.Create, []byte(nil)
			if test.old != "" {
				operation, old = admissionv1.Update, asJSON(t, test.old)
			}
			response := askWith(t, selector, request(t, operation, asJSON(t, test.object), old))
			if response.Allowed != test.allowed || len(response.Warnings) != test.warnings {
				t.Errorf("allowed = %t, want %t; warnings = %q, want %d", response.Allowed, test.allowed, response.Warnings,
					test.warnings)
			}
		})
	}
}

// TestUnusualText allows every text that an API server allows in a value.
func TestUnusualText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"\u007f", "a\u0085b", "a\u2028b\u2029c", "\ufeff", "\ufffe\uffff", "😀ä\t\n\r\x01", "<&>", "---", "%YAML",
		"- x: {", "\\/\"", "*a &b !c", "\xff", strings.Repeat("x", 5000)} {
		var object map[string]any
		if err := json.Unmarshal(asJSON(t, good), &object); err != nil {
			t.Fatal(err)
		}
		object["spec"].(map[string]any)["jobTargetRef"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["containers"] =
			[]any{map[string]any{"name": "runner", "image": "i", "args": []any{text}, "env": []any{map[string]any{"name": "A", "value": text}}}}
		data, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		if response := ask(t, request(t, admissionv1.Create, data, nil)); !response.Allowed {
			t.Errorf("%q: %s", text, response.Result.Message)
		}
	}
}

// TestBadRequests answers also what no API server asks.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]string{
		"no object":       `"operation": "CREATE"`,
		"null":            `"operation": "CREATE", "object": null`,
		"list":            `"operation": "CREATE", "object": []`,
		"text":            `"operation": "CREATE", "object": "object"`,
		"broken metadata": `"operation": "CREATE", "object": {"metadata": 1}`,
		"no old object":   `"operation": "UPDATE", "object": {"spec": {}}`,
		"old is a list":   `"operation": "UPDATE", "object": {"spec": {}}, "oldObject": []`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			review := post(t, nil, []byte(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
				"request": {"uid": "3", "kind": {"group": "keda.sh", "version": "v1alpha1", "kind": "ScaledJob"}, `+rest+`}}`))
			if review.Response.UID != "3" || review.Response.Allowed || review.Response.Result.Message == "" ||
				review.Kind != "AdmissionReview" || review.APIVersion != "admission.k8s.io/v1" {
				t.Errorf("got %+v", review)
			}
		})
	}
}

// FuzzHandler sends any body, and any object in a proper review.
func FuzzHandler(f *testing.F) {
	for _, manifest := range []string{good, bad} {
		object := asJSON(f, manifest)
		body, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
			"request": request(f, admissionv1.Update, object, asJSON(f, good))})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
		f.Add(object)
	}
	f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`))
	f.Add([]byte(`{"spec":{"triggers":[null],"jobTargetRef":{"template":{"spec":{"containers":[{}]}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 0 {
			post(t, nil, data)
		}
		if trimmed := bytes.TrimSpace(data); !json.Valid(data) || trimmed[0] != '{' {
			return
		}
		for _, kind := range kinds {
			response := ask(t, &admissionv1.AdmissionRequest{UID: "2", Operation: admissionv1.Create,
				Kind:   metav1.GroupVersionKind{Group: v1alpha1.Group, Version: v1alpha1.Version, Kind: kind},
				Object: runtime.RawExtension{Raw: data}})
			if !response.Allowed && response.Result.Message == "" {
				t.Errorf("refused without a word: %+v", response)
			}
		}
	})
}

// numbers is a manifest with as many problems as numbers.
func numbers(t testing.TB, count int) []byte {
	t.Helper()
	return []byte(strings.Replace(string(asJSON(t, good)), `"jobTargetRef":{`, fmt.Sprintf(`"jobTargetRef":{"podFailurePolicy":`+
		`{"rules":[{"action":"Count","onExitCodes":{"operator":"In","values":[7%s]}}]},`, strings.Repeat(",7", count-1)), 1))
}

// TestLargest takes objects up to what etcd takes, and checks those of a size that somebody may have written.
func TestLargest(t *testing.T) {
	t.Parallel()
	response := ask(t, request(t, admissionv1.Create, numbers(t, 25_000), nil))
	if errs, _ := said(response); response.Allowed || len(errs) != 101 {
		t.Errorf("allowed = %t: %q", response.Allowed, errs)
	}
	response = ask(t, request(t, admissionv1.Create, numbers(t, 700_000), nil))
	if !response.Allowed || !slices.Equal(response.Warnings, []string{"the object is larger than 128 KiB and has not been checked"}) {
		t.Errorf("allowed = %t: %q", response.Allowed, response.Warnings)
	}
}

// BenchmarkHandler is an ordinary object, and about the largest that is checked.
func BenchmarkHandler(b *testing.B) {
	for name, object := range map[string][]byte{"bad": asJSON(b, bad), "largest": numbers(b, 65_000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			asked := request(b, admissionv1.Create, object, nil)
			for b.Loop() {
				ask(b, asked)
			}
		})
	}
}
