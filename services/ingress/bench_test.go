package ingress_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkQueue enqueues over HTTP, through the whole of ingress, onto a real engine that does not sync.
func BenchmarkQueue(b *testing.B) {
	item := `{"phone":"+1234567890","message":"Hello, this is a test message of a usual length, as shops send them"},`
	for _, size := range []int{1, 200} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			f := start(b, options{EnqueueMaxBytes: 64 << 30})
			f.StopDispatcher() // or it would read along
			url := f.URL + "/api/" + f.Token("acme", nil) + "/queue"
			body := "[" + strings.TrimSuffix(strings.Repeat(item, size), ",") + "]"
			b.ReportAllocs()
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					answer, err := f.Client.Post(url, "application/json", strings.NewReader(body))
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, answer.Body)
					_ = answer.Body.Close()
					if answer.StatusCode != http.StatusOK {
						b.Errorf("got %s", answer.Status)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
