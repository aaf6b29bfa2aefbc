package scaledjob

import batchv1 "k8s.io/api/batch/v1"

// ItemOf returns for which queue's item the Job was made, and for which of its attempts; an empty id when it was made
// for none.
func ItemOf(job *batchv1.Job) (queue, id string, attempt int) {
	if id, attempt = claimOf(job); id == "" {
		return "", "", 0
	}
	return queueOf(job), id, attempt
}
