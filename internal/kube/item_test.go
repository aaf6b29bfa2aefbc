package kube

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

func secretOf(t *testing.T, c client.Client, namespace, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	err := c.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestItemFile looks at the Secret of an item, at how containers get it, and at its end.
func TestItemFile(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	asked := aNamedJob(owner, "one")
	asked.Labels[labelManagedBy] = "somebody"
	asked.Finalizers = []string{v1alpha1.FinalizerSettle}
	spec := &asked.Spec.Template.Spec
	spec.NodeSelector = map[string]string{"no": "such"}
	spec.InitContainers = []corev1.Container{{Name: "first", Image: "none", Command: []string{"true"}}}
	spec.Containers[0].Env = []corev1.EnvVar{{Name: "OWN", Value: "$(OFFBOARD_ITEM_FILE)"}}
	spec.Volumes = []corev1.Volume{{Name: itemName, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	content := []byte("a\x00b$(HOME)\xff'\"\n")
	job, err := j.Create(t.Context(), asked, &scaledjob.ItemFile{Path: "/etc/$item", Content: content})
	if err != nil {
		t.Fatal(err)
	}
	if len(asked.Spec.Template.Spec.Volumes) != 1 || len(asked.Annotations) != 0 {
		t.Errorf("what was asked for has changed: %v", asked)
	}
	secret := secretOf(t, c, job.Namespace, job.Name)
	if secret == nil {
		t.Fatal("there is no Secret")
	}
	if !bytes.Equal(secret.Data[itemKey], content) || !ptr.Deref(secret.Immutable, false) || secret.Type != corev1.SecretTypeOpaque ||
		secret.Labels[v1alpha1.LabelScaledJob] != "work" || secret.Labels[labelManagedBy] != "somebody" ||
		len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0].UID != "owner" || secret.OwnerReferences[0].BlockOwnerDeletion != nil {
		t.Errorf("the Secret is %+v", secret)
	}
	template := job.Spec.Template.Spec
	for _, container := range append(template.InitContainers, template.Containers...) {
		if first := container.Env[0]; first.Name != v1alpha1.ItemVariableFile || first.Value != "/etc/$$item" {
			t.Errorf("container %s has the variables %v", container.Name, container.Env)
		}
		mount := container.VolumeMounts[0]
		if mount.MountPath != "/etc/$item" || mount.SubPath == "" || !mount.ReadOnly || mount.Name == itemName {
			t.Errorf("container %s has the mounts %v", container.Name, container.VolumeMounts)
		}
	}
	if own := template.Containers[0].Env[1].Name; own != "OWN" {
		t.Errorf("the container's own variable is now %s", own)
	}
	// Again, although the Secret is there already.
	if again, err := jobsOn(c).Create(t.Context(), asked.DeepCopy(), &scaledjob.ItemFile{Content: content}); err != nil || again.UID != job.UID {
		t.Errorf("again: %v, %v", again, err)
	}
	listed, err := j.List(t.Context(), owner)
	if err != nil || len(listed) != 1 {
		t.Fatalf("%v, %v", listed, err)
	}
	if err := j.Settled(t.Context(), listed[0]); err != nil {
		t.Fatal(err)
	}
	if secret := secretOf(t, c, job.Namespace, job.Name); secret != nil {
		t.Errorf("the Secret is still there: %v", secret.Name)
	}
	if err := j.Settled(t.Context(), listed[0]); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func randomBytes(size int) []byte {
	content, random := make([]byte, size), rand.New(rand.NewPCG(5, 6))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	return content
}

// TestItemArrives has items of all sizes reach the containers of a Job bit for bit.
func TestItemArrives(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	j.itemImage = programImage
	for name, file := range map[string]*scaledjob.ItemFile{
		"empty":     {},
		"awkward":   {Content: []byte("a\x00b$(HOME)\xff'\"\n"), Path: "/offboard-test/$(HOME)/it em"},
		"secret":    {Content: randomBytes(maxSecret)},
		"five-mega": {Content: randomBytes(5_000_001), Path: "/offboard/item"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			job := aNamedJob(owner, name)
			spec := &job.Spec.Template.Spec
			spec.InitContainers = []corev1.Container{{Name: "first", Image: "none", Command: []string{"sh", "-c", `cat "$OFFBOARD_ITEM_FILE" >"$OUT/first"`}}}
			spec.Containers[0].Command = []string{"sh", "-c", `cat "$OWN" >"$OUT/main" && printf %s "$OWN" >"$OUT/path"`}
			for _, container := range []*corev1.Container{&spec.InitContainers[0], &spec.Containers[0]} {
				container.Env = []corev1.EnvVar{{Name: "OUT", Value: dir}, {Name: "OWN", Value: "$(OFFBOARD_ITEM_FILE)"}}
			}
			stored, err := j.Create(t.Context(), job, file)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the Job is complete", func() bool {
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(stored), stored); err != nil {
					t.Fatal(err)
				}
				how, _ := scaledjob.Finished(stored)
				if how == batchv1.JobFailed {
					t.Fatalf("it has failed: %v", stored.Status)
				}
				return how == batchv1.JobComplete
			})
			for _, container := range []string{"first", "main"} {
				if got, err := os.ReadFile(filepath.Join(dir, container)); err != nil || !bytes.Equal(got, file.Content) {
					t.Errorf("container %s has got %d bytes, %v", container, len(got), err)
				}
			}
			want := cmp.Or(file.Path, itemPath)
			if got, err := os.ReadFile(filepath.Join(dir, "path")); err != nil || string(got) != want {
				t.Errorf("the path is %q, %v", got, err)
			}
		})
	}
}

// TestLargeItem splits an item over several Secrets, which a container puts together before all others.
func TestLargeItem(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	content := randomBytes(5_000_001)
	file := &scaledjob.ItemFile{Path: "/data/item", Content: content}
	asked := aNamedJob(owner, "one")
	asked.Finalizers = []string{v1alpha1.FinalizerSettle}
	asked.Spec.Template.Spec.NodeSelector = map[string]string{"no": "such"}
	asked.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: itemName, Image: "none", Command: []string{"true"}}}
	asked.Spec.Template.Spec.Containers[0].Resources.Limits = corev1.ResourceList{
		corev1.ResourceMemory: resource.MustParse("64Mi"), "example.org/gpu": resource.MustParse("1"),
	}
	j := jobsOn(c)
	if _, err := j.Create(t.Context(), asked, file); err == nil || !strings.Contains(err.Error(), "--item-image") {
		t.Errorf("without an image: %v", err)
	}
	if list, err := j.List(t.Context(), owner); err != nil || len(list) != 0 {
		t.Errorf("without an image: %v, %v", list, err)
	}
	j.itemImage = programImage
	tooLarge := &scaledjob.ItemFile{Content: make([]byte, maxSecrets*maxSecret+1)}
	if _, err := j.Create(t.Context(), asked, tooLarge); err == nil || !strings.Contains(err.Error(), "it may have 50331648") {
		t.Errorf("too large: %v", err)
	}
	job, err := j.Create(t.Context(), asked, file)
	if err != nil {
		t.Fatal(err)
	}
	names := secretNames(job)
	if len(names) != 7 {
		t.Fatalf("the Secrets are %v", names)
	}
	var whole []byte
	for _, name := range names {
		secret := secretOf(t, c, owner.Namespace, name)
		if secret == nil || len(secret.Data[itemKey]) > maxSecret {
			t.Fatalf("Secret %s: %v", name, secret)
		}
		whole = append(whole, secret.Data[itemKey]...)
	}
	if !bytes.Equal(whole, content) {
		t.Errorf("the parts have %d bytes, and are not the item", len(whole))
	}
	spec := job.Spec.Template.Spec
	first := spec.InitContainers[0]
	if want := "join /parts/0 /parts/1 /parts/2 /parts/3 /parts/4 /parts/5 /parts/6 /whole/item"; strings.Join(first.Args, " ") != want ||
		first.Image != j.itemImage || first.Name == itemName || len(first.Env) != 0 || len(first.Command) != 0 {
		t.Errorf("the container that joins is %+v", first)
	}
	if limits := first.Resources.Limits; len(limits) != 1 || limits.Memory().String() != "64Mi" {
		t.Errorf("its limits are %v", limits)
	}
	for _, container := range append(spec.InitContainers[1:], spec.Containers...) {
		mount := container.VolumeMounts[0]
		if mount.MountPath != "/data/item" || mount.SubPath != itemKey || mount.Name != first.VolumeMounts[1].Name ||
			container.Env[0].Value != "/data/item" {
			t.Errorf("container %s has %v and %v", container.Name, container.VolumeMounts, container.Env)
		}
	}
	if err := j.Settled(t.Context(), scaledjob.Job{Job: trimJob(job)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if secretOf(t, c, owner.Namespace, name) != nil {
			t.Errorf("Secret %s is left", name)
		}
	}
}

// TestJoiningIsRestricted has an item put together where only Pods of the strictest standard are admitted.
func TestJoiningIsRestricted(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	namespace := plane.Namespace(t)
	enforce := []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)
	if err := c.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		client.RawPatch(types.MergePatchType, enforce)); err != nil {
		t.Fatal(err)
	}
	owner := types.NamespacedName{Namespace: namespace, Name: "work"}
	asked := aNamedJob(owner, "one")
	spec := &asked.Spec.Template.Spec
	spec.NodeSelector = map[string]string{"no": "such"}
	spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false), RunAsNonRoot: ptr.To(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	j := jobsOn(c)
	j.itemImage = programImage
	if _, err := j.Create(t.Context(), asked, &scaledjob.ItemFile{Content: make([]byte, maxSecret+1)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Job has a Pod", func() bool {
		var pods corev1.PodList
		if err := c.List(t.Context(), &pods, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		return len(pods.Items) == 1
	})
}

// TestSecretsOfOthers has Secrets with the names of Jobs: others' stay as they are, whatever a Job says that it has.
func TestSecretsOfOthers(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: owner.Namespace, Name: name} }
	others := &corev1.Secret{ObjectMeta: meta("others"), Data: map[string][]byte{"password": []byte("x")}}
	left := &corev1.Secret{ObjectMeta: meta("left"), Data: map[string][]byte{itemKey: []byte("of an attempt before")}}
	left.OwnerReferences, left.Labels = aPlainJob(owner).OwnerReferences, aPlainJob(owner).Labels
	for _, secret := range []*corev1.Secret{others, left} {
		if err := c.Create(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	file := &scaledjob.ItemFile{Content: []byte("item")}
	if _, err := j.Create(t.Context(), aNamedJob(owner, "others"), file); !apierrors.IsAlreadyExists(err) {
		t.Errorf("got %v", err)
	}
	if list, err := j.List(t.Context(), owner); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := j.Create(t.Context(), aNamedJob(owner, "left"), file); err != nil {
		t.Errorf("got %v", err)
	}
	if secret := secretOf(t, c, owner.Namespace, "left"); string(secret.Data[itemKey]) != "item" {
		t.Errorf("the item is %q", secret.Data)
	}
	thief := aNamedJob(owner, "others")
	thief.Annotations = map[string]string{annotationItemSecrets: "1"}
	stored, err := j.Create(t.Context(), thief, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Settled(t.Context(), scaledjob.Job{Job: stored}); err != nil {
		t.Fatal(err)
	}
	if secretOf(t, c, owner.Namespace, "others") == nil {
		t.Error("somebody else's Secret was deleted")
	}
	// A Job that is refused leaves nothing behind.
	refused := aNamedJob(owner, "refused")
	refused.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	if _, err := j.Create(t.Context(), refused, file); !apierrors.IsInvalid(err) {
		t.Errorf("got %v", err)
	}
	if secretOf(t, c, owner.Namespace, "refused") != nil {
		t.Error("the Secret of a refused Job is left")
	}
}
