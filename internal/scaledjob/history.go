package scaledjob

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// trimHistory deletes the finished Jobs beyond the history limits, those that finished first before the others.
func (c *Controller) trimHistory(ctx context.Context, sj *v1alpha1.ScaledJob, r *record, jobs []Job) error {
	type finished struct {
		Job
		at time.Time
	}
	ended := map[batchv1.JobConditionType][]finished{}
	for _, job := range jobs {
		if how, at := Finished(job.Job); how != "" && job.DeletionTimestamp == nil {
			ended[how] = append(ended[how], finished{job, at})
		}
	}
	var surplus []finished
	succeeded, failed := sj.HistoryLimits()
	for how, limit := range map[batchv1.JobConditionType]int{batchv1.JobComplete: succeeded, batchv1.JobFailed: failed} {
		kept := ended[how]
		if len(kept) <= limit {
			continue
		}
		slices.SortFunc(kept, func(a, b finished) int {
			if order := a.at.Compare(b.at); order != 0 {
				return order
			}
			return strings.Compare(a.Name, b.Name)
		})
		surplus = append(surplus, kept[:len(kept)-limit]...)
	}
	failures := c.parallel(len(surplus), func(i int) error {
		job := surplus[i]
		if err := c.Jobs.Delete(ctx, job.Namespace, job.Name, job.UID, metav1.DeletePropagationBackground); err != nil {
			return fmt.Errorf("delete Job %s/%s beyond the history limit: %w", job.Namespace, job.Name, err)
		}
		return nil
	})
	if len(failures) > 0 {
		c.fails(ctx, sj, r, trimming, failures[0])
		return failures[0]
	}
	c.works(r, trimming)
	return nil
}

// ofGeneration tells whether the Job was made from this generation of its ScaledJob.
func ofGeneration(job Job, generation int64) bool {
	return job.Annotations[v1alpha1.AnnotationGeneration] == strconv.FormatInt(generation, 10)
}
