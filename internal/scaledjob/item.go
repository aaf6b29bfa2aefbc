package scaledjob

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
)

// Limits of how an item is handed to a Job.
const (
	// maxItemVariable is the size in bytes up to which an item is put into a variable. Linux takes 128 KiB for a variable
	// with its name, and the others need some room too.
	maxItemVariable = 96 << 10
	// maxItemText is how many bytes of an item its annotation shows.
	maxItemText = 4 << 10
	// nameHash is how many characters of a hash stand for the end of a name that is too long.
	nameHash = 8
)

// newItemJob makes the Job for a claim, with its item: in a variable, or in a file where the manifest asks for one or
// the item is too large or no text.
func newItemJob(sj *v1alpha1.ScaledJob, version, queueName string, claim queue.Claim) (*batchv1.Job, *ItemFile) {
	job := newJob(sj, version)
	job.GenerateName, job.Name = "", itemJobName(sj.Name, claim.ID, claim.Attempt)
	job.Finalizers = append(job.Finalizers, v1alpha1.FinalizerSettle)
	attempt := strconv.Itoa(claim.Attempt)
	if job.Spec.Template.Annotations == nil {
		job.Spec.Template.Annotations = map[string]string{}
	}
	for _, annotations := range []map[string]string{job.Annotations, job.Spec.Template.Annotations} {
		annotations[v1alpha1.AnnotationItemID] = claim.ID
		annotations[v1alpha1.AnnotationAttempt] = attempt
		annotations[v1alpha1.AnnotationItem] = itemText(claim.Parts)
	}
	job.Annotations[v1alpha1.AnnotationQueue] = printable(queueName)

	variables := []corev1.EnvVar{
		{Name: v1alpha1.ItemVariableID, Value: claim.ID}, {Name: v1alpha1.ItemVariableAttempt, Value: attempt},
	}
	delivery := sj.Spec.Delivery
	inVariable := false
	if name := delivery.Variable(); name != "" {
		var value string
		if value, inVariable = itemVariable(claim.Parts); inVariable {
			variables = append(variables, corev1.EnvVar{Name: name, Value: value})
		}
	}
	pod := &job.Spec.Template.Spec
	for _, containers := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range containers {
			containers[i].Env = append(slices.Clone(variables), containers[i].Env...)
		}
	}
	var asked string
	if delivery != nil {
		asked = delivery.File
	}
	if asked == "" && inVariable {
		return job, nil
	}
	return job, &ItemFile{Path: asked, Content: itemFile(claim.Parts)}
}

// itemJobName is the name of the Job for one attempt of an item: two Jobs for one attempt cannot be. A name that is too
// long for a Job is cut, and a hash of the whole keeps it apart from others.
func itemJobName(scaledJob, id string, attempt int) string {
	suffix := "-" + id + "-" + strconv.Itoa(attempt)
	if room := validation.DNS1123LabelMaxLength - len(suffix); len(scaledJob) > room {
		sum := sha256.Sum256([]byte(scaledJob))
		hash := hex.EncodeToString(sum[:])[:nameHash]
		scaledJob = strings.TrimRight(scaledJob[:room-1-nameHash], "-.") + "-" + hash
	}
	return scaledJob + suffix
}

// claimOf returns which claim the Job was made for; an empty id when it was made for none.
func claimOf(job *batchv1.Job) (id string, attempt int) {
	id = job.Annotations[v1alpha1.AnnotationItemID]
	attempt, err := strconv.Atoi(job.Annotations[v1alpha1.AnnotationAttempt])
	if err != nil {
		return "", 0
	}
	return id, attempt
}

// queueOf returns the name of the queue that the item of the Job is from.
func queueOf(job *batchv1.Job) string {
	name := job.Annotations[v1alpha1.AnnotationQueue]
	if unquoted, err := strconv.Unquote(name); err == nil && strings.HasPrefix(name, `"`) {
		return unquoted
	}
	return name
}

// unsettled tells whether the Job is kept until the outcome of its item is settled.
func unsettled(job *batchv1.Job) bool {
	return slices.Contains(job.Finalizers, v1alpha1.FinalizerSettle)
}

// itemVariable returns the items as the value of a variable: one as it is, several as an array of JSON; false when a
// variable cannot hold it. What Kubernetes would take for a reference to another variable is escaped
// (https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/).
func itemVariable(parts [][]byte) (string, bool) {
	value := parts[0]
	if len(parts) > 1 {
		elements := make([][]byte, len(parts))
		for i, part := range parts {
			elements[i] = asJSON(part)
		}
		value = slices.Concat([]byte("["), bytes.Join(elements, []byte(",")), []byte("]"))
	}
	if len(value) > maxItemVariable || bytes.IndexByte(value, 0) >= 0 || !utf8.Valid(value) {
		return "", false
	}
	return strings.ReplaceAll(string(value), "$", "$$"), true
}

// itemFile returns the items as the content of a file: one as it is, several as one line of JSON each.
func itemFile(parts [][]byte) []byte {
	if len(parts) == 1 {
		return parts[0]
	}
	var content bytes.Buffer
	for _, part := range parts {
		content.Write(asJSON(part))
		content.WriteByte('\n')
	}
	return content.Bytes()
}

// asJSON returns an item as JSON on one line: as it is, if it is that; a text as a string; any other bytes as an object
// with the one field base64.
func asJSON(item []byte) []byte {
	switch {
	case json.Valid(item) && !bytes.ContainsAny(item, "\r\n"):
		return item
	case json.Valid(item):
		var line bytes.Buffer
		if err := json.Compact(&line, item); err == nil {
			return line.Bytes()
		}
	case !utf8.Valid(item):
		return []byte(`{"base64":"` + base64.StdEncoding.EncodeToString(item) + `"}`)
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(string(item)); err != nil {
		panic(err) // any string can be encoded
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}

// itemText returns the items for people: their beginning, as far as it can be shown.
func itemText(parts [][]byte) string {
	text := printable(string(parts[0][:min(len(parts[0]), maxItemText)]))
	if len(parts) > 1 {
		text = strconv.Itoa(len(parts)) + " items, the first: " + text
	}
	return text
}

// printable returns a text as it is if it can be shown, else quoted as in Go.
func printable(text string) string {
	hidden := func(r rune) bool { return !unicode.IsPrint(r) }
	if utf8.ValidString(text) && !strings.ContainsFunc(text, hidden) && !strings.HasPrefix(text, `"`) {
		return text
	}
	return strconv.Quote(text)
}
