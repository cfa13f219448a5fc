// A grpc-go client for the tests: calls a method with bytes as they are, checks and watches health.
//
//	client ADDRESS call /package.Service/Method HEX   prints the status, and the response as hex
//	client ADDRESS health SERVICE                     prints the status of Check, of the first answer of Watch, and of List
//	client ADDRESS many /package.Service/Method HEX N prints how many of N calls at once were OK
package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte(nil), data...); return nil }
func (raw) Name() string                       { return "proto" }

func call(ctx context.Context, connection *grpc.ClientConn, method string, request []byte) ([]byte, error) {
	var response []byte
	err := connection.Invoke(ctx, method, &request, &response, grpc.ForceCodec(raw{}))
	return response, err
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	switch os.Args[2] {
	case "call":
		request, _ := hex.DecodeString(os.Args[4])
		response, err := call(ctx, connection, os.Args[3], request)
		fmt.Println(status.Code(err), hex.EncodeToString(response))
	case "many":
		request, _ := hex.DecodeString(os.Args[4])
		count, _ := strconv.Atoi(os.Args[5])
		var good atomic.Int64
		var group sync.WaitGroup
		for range count {
			group.Go(func() {
				if _, err := call(ctx, connection, os.Args[3], request); err == nil {
					good.Add(1)
				}
			})
		}
		group.Wait()
		fmt.Println(good.Load())
	case "health":
		client := health.NewHealthClient(connection)
		request := &health.HealthCheckRequest{Service: os.Args[3]}
		checked, err := client.Check(ctx, request)
		fmt.Println(status.Code(err), checked.GetStatus())
		watch, err := client.Watch(ctx, request)
		if err == nil {
			checked, err = watch.Recv()
		}
		fmt.Println(status.Code(err), checked.GetStatus())
		_, err = client.List(ctx, &health.HealthListRequest{})
		fmt.Println(status.Code(err))
	}
}
