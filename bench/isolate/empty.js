/** The function to which cold starts are compared. */
Deno.serve(() => new Response('ok'));
