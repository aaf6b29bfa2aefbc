package jobs

import (
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

var (
	jobResource = batchv1.Resource("jobs")
	jobKind     = batchv1.SchemeGroupVersion.WithKind("Job").GroupKind()
)

func notFound(job string) error { return apierrors.NewNotFound(jobResource, job) }

func unavailable() error {
	return apierrors.NewServiceUnavailable("the Job controller is being stopped; try again when it runs")
}
