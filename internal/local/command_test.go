package local

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/internal/local/objects"
	"github.com/offboard-dev/offboard/internal/podenv"
)

func TestCommand(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		container corev1.Container
		folder    string
		item      string
		want      wanted
		err       string
	}{
		{
			name:      "works in the folder of its manifest",
			container: corev1.Container{Command: []string{"run", "$(REDIS_HOST)"}, Args: []string{"$(OWN)", "$(NONE)"}},
			folder:    "/manifests",
			want:      wanted{args: []string{"run", "here", "own", "$(NONE)"}, dir: "/manifests"},
		},
		{
			name:      "a relative working folder",
			container: corev1.Container{Command: []string{"run"}, WorkingDir: "sub/../other"},
			folder:    "/manifests",
			want:      wanted{args: []string{"run"}, dir: "/manifests/other"},
		},
		{
			name:      "an absolute working folder needs no other",
			container: corev1.Container{Command: []string{"run"}, WorkingDir: "/elsewhere"},
			want:      wanted{args: []string{"run"}, dir: "/elsewhere"},
		},
		{
			name: "the file of an item",
			container: corev1.Container{
				Command: []string{"run", "$(OFFBOARD_ITEM_FILE)"}, Args: []string{"--in=$(INPUT)"},
				Env: []corev1.EnvVar{{Name: "INPUT", Value: "file:$(OFFBOARD_ITEM_FILE)"}},
			},
			folder: "/manifests",
			item:   "/data/$(OWN)/$$item",
			want: wanted{args: []string{"run", "/data/$(OWN)/$$item", "--in=file:/data/$(OWN)/$$item"}, dir: "/manifests",
				env: []string{"OFFBOARD_ITEM_FILE=/data/$(OWN)/$$item"}},
		},
		{
			name:      "no folder",
			container: corev1.Container{Name: "main", Command: []string{"run"}},
			err:       `container "main": the Job does not tell the folder`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := commands{
				env: func() []podenv.Variable { return []podenv.Variable{{Name: "REDIS_HOST", Value: "here"}} },
				annotations: func(namespace, job string) map[string]string {
					if namespace != "default" || job != "job" {
						t.Errorf("annotations of %s/%s", namespace, job)
					}
					return map[string]string{objects.AnnotationFolder: test.folder}
				},
				item:      func(*corev1.Pod) string { return test.item },
				inherited: []string{"PATH=/bin", "HOME=/home"}, log: slog.New(slog.DiscardHandler),
			}
			test.container.Env = append(test.container.Env,
				corev1.EnvVar{Name: "OWN", Value: "own"}, corev1.EnvVar{Name: "HOME", Value: "/own"})
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Labels: map[string]string{batchv1.JobNameLabel: "job"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{test.container}},
			}
			got, err := c.of(t.Context(), pod, &pod.Spec.Containers[0])
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Args, test.want.args) || got.Dir != test.want.dir {
				t.Errorf("%v in %s, want %v in %s", got.Args, got.Dir, test.want.args, test.want.dir)
			}
			for _, variable := range append(test.want.env, "PATH=/bin", "HOME=/own", "OWN=own", "REDIS_HOST=here") {
				if !slices.Contains(got.Env, variable) {
					t.Errorf("%s is not in %v", variable, got.Env)
				}
			}
			if slices.Contains(got.Env, "HOME=/home") {
				t.Errorf("a variable that the manifest sets is inherited: %v", got.Env)
			}
		})
	}
}

// wanted is what a test wants of a pods.Command.
type wanted struct {
	args []string
	dir  string
	env  []string
}

// TestInherited gives containers what they need to find programs, and no secret of this process.
func TestInherited(t *testing.T) {
	t.Setenv("PATH", "/one")
	t.Setenv("LANG", "C.UTF-8")
	t.Setenv("OFFBOARD_TEST_TOKEN", "secret")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	got := inherited()
	for _, want := range []string{"LANG=C.UTF-8", "PATH=/one:" + filepath.Dir(program)} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not in %v", want, got)
		}
	}
	if strings.Contains(strings.Join(got, " "), "secret") {
		t.Errorf("all is inherited: %v", got)
	}
	t.Setenv("PATH", "")
	if got := strings.Join(inherited(), " "); !strings.Contains(got, "PATH=/usr/local/bin:") {
		t.Errorf("no PATH: %v", got)
	}
}
