package kube

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

const (
	// itemName is the name of the volume with the item, and of the init container that puts it together, unless the
	// manifest has one of that name; partsName is that of the volume with its parts.
	itemName  = "offboard-item"
	partsName = "offboard-item-parts"
	// itemPath is where the item is when nobody has asked for a certain place. It is no folder that an image may have,
	// and no file: there is one of the name /offboard in this program's own image.
	itemPath = "/offboard-item"
	// partsPath and wholePath are where that init container has the parts and the item.
	partsPath = "/parts"
	wholePath = "/whole"
	// itemMode lets every user of a container read the item, and nobody change it.
	itemMode = 0o444
)

// mountItem gives every container of the Job the item as a file, and the variable with the path of it. An item that is
// too large for one Secret is put together by a container that comes before the others, from the image.
func mountItem(job *batchv1.Job, file *scaledjob.ItemFile, image string) error {
	count := max(1, (len(file.Content)+maxSecret-1)/maxSecret)
	switch {
	case count > maxSecrets:
		return scaledjob.ItemError{Err: fmt.Errorf("the item of Job %s/%s has %d bytes: as a file on a cluster it may "+
			"have %d", job.Namespace, job.Name, len(file.Content), maxSecrets*maxSecret)}
	case count > 1 && image == "":
		return scaledjob.ItemError{Err: fmt.Errorf("the item of Job %s/%s has %d bytes: one of more than %d is put together "+
			"from several Secrets, for which the operator needs --item-image, its own image",
			job.Namespace, job.Name, len(file.Content), maxSecret)}
	}
	if job.Annotations == nil {
		job.Annotations = map[string]string{}
	}
	job.Annotations[annotationItemSecrets] = strconv.Itoa(count)
	spec := &job.Spec.Template.Spec
	item := corev1.Volume{Name: freeVolume(spec, itemName), VolumeSource: secretFiles(job)}
	if count > 1 {
		item.VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	}
	path := file.Path
	if path == "" {
		path = itemPath
	}
	variable := corev1.EnvVar{Name: v1alpha1.ItemVariableFile, Value: strings.ReplaceAll(path, "$", "$$")}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			// One file is mounted and not its folder, whose other files the image may need. The variable comes first, for
			// others to refer to it.
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{
				Name: item.Name, MountPath: path, SubPath: itemKey, ReadOnly: true,
			})
			c.Env = append([]corev1.EnvVar{variable}, c.Env...)
		}
	}
	spec.Volumes = append(spec.Volumes, item)
	if count > 1 {
		parts := corev1.Volume{Name: freeVolume(spec, partsName), VolumeSource: secretFiles(job)}
		spec.Volumes = append(spec.Volumes, parts)
		first := joining(spec, image, count, parts.Name, item.Name)
		spec.InitContainers = append([]corev1.Container{first}, spec.InitContainers...)
	}
	return nil
}

// joining is the container that puts an item together from its parts. It keeps to the strictest of the Pod security
// standards, as the Pod may have to, and takes no more of a quota than the Pod takes anyway.
func joining(spec *corev1.PodSpec, image string, count int, parts, item string) corev1.Container {
	args := []string{"join"}
	for i := range count {
		args = append(args, partsPath+"/"+partFile(i, count))
	}
	security := &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true), RunAsNonRoot: ptr.To(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if of := spec.SecurityContext; of != nil && of.RunAsUser != nil && *of.RunAsUser == 0 {
		security.RunAsNonRoot = nil // it would not be started
	}
	c := corev1.Container{
		Name: freeContainer(spec, itemName), Image: image, Args: append(args, wholePath+"/"+itemKey),
		VolumeMounts: []corev1.VolumeMount{
			{Name: parts, MountPath: partsPath, ReadOnly: true}, {Name: item, MountPath: wholePath},
		},
		SecurityContext: security,
	}
	if len(spec.Containers) > 0 {
		c.Resources.Requests = computing(spec.Containers[0].Resources.Requests)
		c.Resources.Limits = computing(spec.Containers[0].Resources.Limits)
	}
	return c
}

// computing are the resources that every container needs.
func computing(all corev1.ResourceList) corev1.ResourceList {
	var some corev1.ResourceList
	for _, name := range []corev1.ResourceName{
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
	} {
		if quantity, found := all[name]; found {
			if some == nil {
				some = corev1.ResourceList{}
			}
			some[name] = quantity
		}
	}
	return some
}

// secretFiles is a volume with what the Job's Secrets hold.
func secretFiles(job *batchv1.Job) corev1.VolumeSource {
	projected := &corev1.ProjectedVolumeSource{DefaultMode: ptr.To[int32](itemMode)}
	names := secretNames(job)
	for i, name := range names {
		projected.Sources = append(projected.Sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: name},
			Items:                []corev1.KeyToPath{{Key: itemKey, Path: partFile(i, len(names))}},
		}})
	}
	return corev1.VolumeSource{Projected: projected}
}

// partFile is the name of the file of a part.
func partFile(i, count int) string {
	if count == 1 {
		return itemKey
	}
	return strconv.Itoa(i)
}

// freeVolume returns a name that no volume of the Pod has.
func freeVolume(spec *corev1.PodSpec, name string) string {
	return free(name, func(name string) bool {
		return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	})
}

// freeContainer returns a name that no container of the Pod has.
func freeContainer(spec *corev1.PodSpec, name string) string {
	named := func(name string) func(corev1.Container) bool {
		return func(c corev1.Container) bool { return c.Name == name }
	}
	return free(name, func(name string) bool {
		return slices.ContainsFunc(spec.Containers, named(name)) || slices.ContainsFunc(spec.InitContainers, named(name))
	})
}

func free(name string, taken func(string) bool) string {
	for free, i := name, 2; ; free, i = fmt.Sprintf("%s-%d", name, i), i+1 {
		if !taken(free) {
			return free
		}
	}
}
