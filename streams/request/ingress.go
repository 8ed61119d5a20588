package request

import "strconv"

// IngressSeen is the subject of Seen → Saw of one ingress instance.
func IngressSeen(instance int) string { return ingress(instance, "seen") }

// IngressGrants is the subject of OpenGrants → Grants of one ingress instance.
func IngressGrants(instance int) string { return ingress(instance, "grants") }

func ingress(instance int, verb string) string {
	return "trunkline.ingress." + strconv.Itoa(instance) + "." + verb
}

// Seen asks an ingress to answer once it acts on the accounts bucket as of a
// revision.
type Seen struct {
	Revision uint64 `json:"revision"`
}

// Saw answers a Seen.
type Saw struct{}

// OpenGrants asks an ingress for the grants whose messages it may still store,
// and tells it of quota's new leader.
type OpenGrants struct {
	Leader uint64 `json:"leader"`
}

// Grants are the open grants of one ingress.
type Grants struct {
	Grants []Grant `json:"grants"`
}
