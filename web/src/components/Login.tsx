// Asks for a key where the server wants one. The key is sent once, in the body of a request, and kept nowhere in the page.

import { useState, type FormEvent } from "react";
import { logIn } from "../api";

export function Login() {
  const [problem, setProblem] = useState<string | null>(null);
  const [isAsking, setIsAsking] = useState(false);

  function submit(event: FormEvent<HTMLFormElement>): void {
    event.preventDefault();
    const key = new FormData(event.currentTarget).get("key");
    if (typeof key !== "string" || key === "") return;
    setIsAsking(true);
    logIn(key.trim())
      .catch((error: unknown) => setProblem(error instanceof Error ? error.message : String(error)))
      .finally(() => setIsAsking(false));
  }

  return (
    <main className="page">
      <h1>This server wants a key</h1>
      <p className="lead">
        Whoever runs it makes one: <code>runferry server keys add NAME</code>
      </p>
      <form className="login" onSubmit={submit}>
        <label>
          Key <input name="key" type="password" autoComplete="current-password" required />
        </label>
        <button type="submit" disabled={isAsking}>
          Log in
        </button>
      </form>
      {problem !== null && <p role="alert">{problem}</p>}
    </main>
  );
}
