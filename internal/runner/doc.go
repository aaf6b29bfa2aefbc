// Package runner is the program inside a Job: it runs a command with one item, then ends as the command ended. It
// serves any language, since the command needs to know nothing of Redis. Where the Job was not handed its item, the
// runner claims one from a Redis list, and settles the claim by how the command went.
//
// It starts once per item, so it starts quickly: it depends on little and does no work before it is asked to. It knows
// nothing of ScaledJobs and of the process that made its Job.
package runner
