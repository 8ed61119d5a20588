package ingress_test

import (
	"testing"
)

func TestIngress_Smoke(t *testing.T) {
	f := start(t, options{})
	token := f.Token("a", nil)
	t.Log(f.Post("/api/"+token+"/queue", `[{"phone":"+1234567890","message":"Hello <&> é"},{"phone":"07","text":"x"}]`))
	t.Log(f.Get("/api/" + token + "/get_messages?device=A"))
	t.Log(f.Get("/health"))
	t.Log(f.Get("/metrics"))
	f.Restart()
	t.Log(f.Post("/api/"+token+"/status", `{"device":"A","messages":[{"hash":"00000000000","status":3}]}`))
}
