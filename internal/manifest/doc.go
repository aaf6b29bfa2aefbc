// Package manifest reads ScaledJobs, TriggerAuthentications, Secrets and ConfigMaps from YAML and JSON, strictly, and
// says of everything that is wrong with them where it is and what would be right.
//
// Reading has two steps. Read and Parse turn bytes into typed objects; what they accept decodes to exactly what
// sigs.k8s.io/yaml and so kubectl would give. Validate then looks at the objects as the API server and KEDA would when
// they are created, at references between them, and at what two objects claim together.
//
// The package never looks at a queue, a process or a cluster, and it does not decide what one machine can run: that is
// internal/local/support, whose findings Document.FieldProblems turns into problems with positions.
package manifest
